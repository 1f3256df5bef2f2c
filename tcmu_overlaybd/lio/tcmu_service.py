"""``org.kernel.TCMUService1`` on the system bus: how targetcli learns that ``user:overlaybd`` exists.

It asks for the objects below ``/org/kernel/TCMUService1``, one for each handler, and calls
``CheckConfig`` before it creates a backstore.  tcmu-runner owns the same name; when it does, we
queue behind it.  Without a bus everything but targetcli works, so that is a line in the log.

The bus has a thread and an asyncio loop of its own.  What is checked, disks included, is
checked by other threads and inside a time limit, so that the loop always answers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Annotated

from dbus_fast import BusType, DBusError, RequestNameReply
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusSignature, DBusStr
from dbus_fast.constants import PropertyAccess
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

from tcmu_overlaybd.errors import OverlayBDError

logger = logging.getLogger(__name__)

NAME = "org.kernel.TCMUService1"
ROOT = "/org/kernel/TCMUService1"

CONNECT_TIMEOUT_S = 10.0
FIRST_PAUSE_S = 1.0  # between attempts; doubled each time
MAX_PAUSE_S = 60.0
CHECK_TIMEOUT_S = 10.0  # D-Bus callers wait for 25
CHECK_THREADS = 4
JOIN_S = 5.0

Check = Callable[[str], None]
Verdict = Annotated[tuple[bool, str], DBusSignature("bs")]


class HandlerInterface(ServiceInterface):
    """One handler.  Its object's name is the subtype."""

    def __init__(self, description: str, check: Check) -> None:
        """check raises an OverlayBDError for a config string that would not do."""
        super().__init__(NAME)
        self._description = description
        self._check = check
        self._pool = ThreadPoolExecutor(CHECK_THREADS, "check-config")

    @dbus_property(PropertyAccess.READ)
    def ConfigDesc(self) -> DBusStr:  # noqa: N802 the name is the bus's
        return self._description

    @dbus_method()
    async def CheckConfig(self, config: DBusStr) -> Verdict:  # noqa: N802
        return await self.judge(config)

    async def judge(self, config: str) -> tuple[bool, str]:
        """(true, "") or (false, why not); never raises."""
        checking = asyncio.get_running_loop().run_in_executor(self._pool, self._check, config)
        try:
            await asyncio.wait_for(checking, CHECK_TIMEOUT_S)
        except OverlayBDError as error:
            return False, str(error)
        except TimeoutError:
            return False, f"not checked within {CHECK_TIMEOUT_S:.0f} s: does a disk not answer?"
        except Exception as error:  # the border: the caller must get an answer
            logger.exception("D-Bus: CheckConfig(%r) failed", config)
            return False, f"a fault in the daemon: {type(error).__name__}: {error}"
        return True, ""


class TcmuService:
    """A context manager: on the bus, whenever there is one, while inside."""

    def __init__(self, subtype: str, description: str, check: Check) -> None:
        self._path = f"{ROOT}/{subtype}"
        self._interface = HandlerInterface(description, check)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._was_there = True  # the first failure is told, those after it are no news
        self._thread = threading.Thread(target=self._run, name="d-bus", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:  # nobody else would hear of it
            logger.exception("D-Bus: no more answers on %s", NAME)

    async def _serve(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stop.is_set():
            try:
                bus = await asyncio.wait_for(self._connect(), CONNECT_TIMEOUT_S)
            except (OSError, EOFError, TimeoutError, DBusError) as error:
                self._tell_failure(error)
            else:
                pause_s = FIRST_PAUSE_S
                await self._stay(bus)
            await self._wait(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def _connect(self) -> MessageBus:
        """On the bus with our name, or in the queue for it."""
        bus = MessageBus(bus_type=BusType.SYSTEM)
        try:
            await bus.connect()
            bus.export(self._path, self._interface)
            reply = await bus.request_name(NAME)
        except BaseException:
            bus.disconnect()
            raise
        if reply is RequestNameReply.IN_QUEUE:
            logger.warning(
                "D-Bus: %s belongs to another daemon, tcmu-runner or our predecessor, and is ours after it",
                NAME,
            )
        else:
            logger.info("D-Bus: owns %s", NAME)
        self._was_there = True
        return bus

    async def _stay(self, bus: MessageBus) -> None:
        """Until the bus ends, or we do."""
        gone = asyncio.ensure_future(bus.wait_for_disconnect())  # type: ignore[no-untyped-call]
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({gone, stop}, return_when=asyncio.FIRST_COMPLETED)
        bus.unexport(self._path, self._interface)
        bus.disconnect()
        for waiter in (gone, stop):
            waiter.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await waiter

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _tell_failure(self, error: Exception) -> None:
        level = logging.WARNING if self._was_there else logging.DEBUG
        self._was_there = False
        logger.log(level, "D-Bus: targetcli does not see user:overlaybd: %s", _why(error))


def _why(error: Exception) -> str:
    if isinstance(error, DBusError) and error.type.endswith(".AccessDenied"):
        return f"the bus does not let us own {NAME}: its policy file is missing (make install-files)"
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return "there is no system bus"
    return f"{type(error).__name__}: {error}"
