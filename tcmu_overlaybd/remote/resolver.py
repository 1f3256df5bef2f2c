"""The threads that answer the data plane: which URL, and which headers, has a blob now?

One thread takes the questions; each host has a pair of threads of its own that answers
them, made when it is first asked about.  So a registry, or a token service, that does not
answer keeps nobody waiting but those who read from it.  The threads are daemon threads:
one that hangs in the network does not keep the process from ending.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from tcmu_overlaybd.errors import FailedError, OverlayBDError, UnavailableError
from tcmu_overlaybd.native.fetcher import Fetcher, Question
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.remote.origins import BlobOrigin

logger = logging.getLogger(__name__)

POLL_MS = 1000
ANSWER_S = 20.0  # for one answer; commands have deadlines of their own
THREADS_PER_HOST = 2

Work = Callable[[], None]


class Resolver:
    """Owned by the store, which closes it before the fetcher.  Thread-safe.

    ``_lock`` guards what is below it, and is held while an answer is given, which waits for
    nothing: so none is given to a fetcher that is being closed.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._lock = threading.Lock()
        self._is_closed = False
        self._origins: dict[int, BlobOrigin] = {}
        self._queues: dict[str, SimpleQueue[Work | None]] = {}
        self._taker = threading.Thread(target=self._take, name="resolver", daemon=True)
        self._taker.start()

    def add(self, origin_id: int, origin: BlobOrigin) -> None:
        with self._lock:
            self._origins[origin_id] = origin

    def remove(self, origin_id: int) -> None:
        with self._lock:
            self._origins.pop(origin_id, None)

    def close(self) -> None:
        """No question is taken, and no answer given, any more.  What hangs in the network is left behind."""
        with self._lock:
            self._is_closed = True
        self._fetcher.close_questions()
        self._taker.join()
        for queue in self._queues.values():
            for _ in range(THREADS_PER_HOST):
                queue.put(None)

    def _take(self) -> None:
        while True:
            try:
                question = self._fetcher.next_question(POLL_MS)
            except FailedError:
                return  # the queue is closed
            with self._lock:
                origin = None if question is None else self._origins.get(question.origin_id)
            if question is not None and origin is not None:  # else it was closed meanwhile
                self._queue_of(origin.host).put(lambda q=question, o=origin: self._answer(q, o))  # type: ignore[misc]

    def _queue_of(self, host: str) -> SimpleQueue[Work | None]:
        queue = self._queues.get(host)
        if queue is None:
            queue = self._queues[host] = SimpleQueue()
            for _ in range(THREADS_PER_HOST):
                threading.Thread(target=_work, args=(queue,), name=f"resolve {host}", daemon=True).start()
        return queue

    def _answer(self, question: Question, origin: BlobOrigin) -> None:
        try:
            resolution = origin.resolve(question, Deadline.after(ANSWER_S))
            self._tell(lambda: self._fetcher.reply(question.origin_id, resolution))
        except OverlayBDError as error:
            failure = error
            self._tell(lambda: self._fetcher.fail(question.origin_id, failure))
        except Exception as error:  # a fault of ours: readers wait for an answer all the same
            logger.exception("%s", origin.name)
            fault = UnavailableError(f"{origin.name}: a fault while asking for it: {type(error).__name__}")
            self._tell(lambda: self._fetcher.fail(question.origin_id, fault))

    def _tell(self, answer: Work) -> None:
        with self._lock:
            if not self._is_closed:
                answer()


def _work(queue: SimpleQueue[Work | None]) -> None:
    while (work := queue.get()) is not None:
        work()
