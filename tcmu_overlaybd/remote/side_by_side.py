"""The layers of an image worked on side by side; the first failure, or Ctrl-C, ends all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from tcmu_overlaybd.errors import FailedError

MAX_LAYERS_AT_ONCE = 4

# Number of the layer from 1, what is done with it, bytes done, bytes in all.
LayerProgress = Callable[[int, str, int, int], None]

Layer = TypeVar("Layer", bound=Hashable)
Result = TypeVar("Result")


class Stop:
    """Asked by those who work, between their steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        """Raises FailedError once it is set; who set it has a better sentence."""
        if self._event.is_set():
            raise FailedError("given up, because of another layer")


def side_by_side(work: Callable[[int, Layer], Result], layers: Sequence[Layer], stop: Stop) -> list[Result]:
    """What work makes of each layer and its number, in their order; equal ones are worked on once.

    Raises what the first to fail raised, when all have ended.
    """
    distinct = list(dict.fromkeys(layers))
    with ThreadPoolExecutor(MAX_LAYERS_AT_ONCE, thread_name_prefix="layer") as pool:
        futures = {layer: pool.submit(work, layers.index(layer) + 1, layer) for layer in distinct}
        try:
            for future in as_completed(futures.values()):
                future.result()
        except BaseException:  # Ctrl-C too
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [futures[layer].result() for layer in layers]
