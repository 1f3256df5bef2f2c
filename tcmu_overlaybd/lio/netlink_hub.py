"""The hub without libtcmu: the kernel's generic netlink family TCM-USER (spec/tcmu.md, section 1).

Every daemon on a machine hears of every TCMU device, and the kernel takes the first answer.
libtcmu answers ENOENT for what it does not serve, so two daemons that use it refuse each other's
devices.  This hub answers for devices of our subtype only, and does not say
(SET_FEATURES) that somebody answers for all.  What tcmu-runner says of *ours* cannot be
prevented; so a device that is to live beside it has ``nl_reply_supported=-1``: the kernel
then waits for nobody.  For such a device

- ``added`` comes while its maker already goes on: the kernel's first commands lie on the ring
- ``removed`` comes after the device has gone
- ``reconfig`` cannot refuse, and comes when LIO shows the new value already: such a disk grows
  by our ``resize``, not by writing ``dev_size``

A device is known by its minor.  The socket is a member of the group before /sys is looked at,
so that what comes in between is heard of twice rather than not at all.  When messages were lost all
the same (``LostError``), /sys is looked at again, and what differs is told.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tcmu_overlaybd.errors import FailedError, FormatError, OverlayBDError
from tcmu_overlaybd.lio.config_string import SUBTYPE
from tcmu_overlaybd.lio.discovery import SYS, BackstoreId, config_of_uio_name, parse_uio_name
from tcmu_overlaybd.lio.genetlink import GenericNetlink, LostError, Message
from tcmu_overlaybd.lio.kernel_text import read_kernel_text
from tcmu_overlaybd.native.hub import (
    Change,
    ConfigChange,
    HubDevice,
    HubListener,
    SizeChange,
    WriteCacheChange,
    status_of_failure,
)

logger = logging.getLogger(__name__)

FAMILY = "TCM-USER"
GROUP = "config"
VERSION = 2
RECEIVE_BUFFER = 4 << 20  # some 4,000 messages
MAX_PER_TURN = 64  # messages; the main loop has signals and a watchdog to see to, too

# <linux/target_core_user.h>, enum tcmu_genl_cmd and enum tcmu_genl_attr
ADDED, REMOVED, RECONFIG = 1, 2, 3
DONE = 3  # the answer to a command is its number and this
A_DEVICE, A_MINOR, A_CONFIG, A_SIZE, A_WRITE_CACHE, A_STATUS, A_ID = 1, 2, 4, 5, 6, 7, 8


@dataclass(frozen=True, slots=True)
class Served:
    """A device that the listener has accepted.  backstore tells it from a later one with its minor;
    its UIO name would not, since that changes with the config string."""

    handle: int
    backstore: BackstoreId | None
    waits: bool  # the kernel wants answers to what it says of the device


class NetlinkHub:
    """Implements ``native.hub.Hub``."""

    def __init__(self, listener: HubListener, *, receive_buffer: int = RECEIVE_BUFFER) -> None:
        """Tells of every device of our subtype that exists already, whose rings it resets.

        A device that another process serves is left alone.  Raises UnavailableError without
        the kernel module.
        """
        self._listener = listener
        self._handles = itertools.count(1)
        self._served: dict[int, Served] = {}
        self._netlink = GenericNetlink(FAMILY, GROUP, receive_buffer)
        for minor, text in uio_devices().items():
            self._serve(minor, text, waits=waits_for_answers(text), is_new=False)

    def fileno(self) -> int:
        return self._netlink.fileno()

    def ready(self) -> None:
        for _ in range(MAX_PER_TURN):
            try:
                messages = self._netlink.receive()
            except LostError as error:
                logger.warning("hub: %s; looking at all devices again", error)
                self._look_again()
                continue
            except OverlayBDError as error:
                logger.error("hub: %s", error)  # noqa: TRY400 the sentence is all
                continue
            if not messages:
                return
            for message in messages:
                self._handle(message)

    # -- messages

    def _handle(self, message: Message) -> None:
        if message.kind != self._netlink.family:
            if message.error:
                logger.debug("hub: the kernel did not take an answer: %s", os.strerror(message.error))
            return
        try:
            text, minor = message.text(A_DEVICE), message.number(A_MINOR)
            if config_of_uio_name(text).partition("/")[0] != SUBTYPE:
                return
            handle = {ADDED: self._on_added, REMOVED: self._on_removed, RECONFIG: self._on_reconfig}
            handle.get(message.command, self._on_unknown)(message, minor, text)
        except FormatError as error:
            logger.error("hub: %s", error)  # noqa: TRY400 the sentence is all

    def _on_added(self, message: Message, minor: int, text: str) -> None:
        served = self._served.get(minor)
        if served is not None and served.backstore != parse_uio_name(text):  # that one's end was not told
            self._tell_removed(minor)
            served = None
        waits = waits_for_answers(text)
        status = 0 if served is not None else self._serve(minor, text, waits=waits, is_new=True)
        if waits:
            self._answer(message, status)

    def _on_removed(self, message: Message, minor: int, text: str) -> None:
        """Nothing is read of configfs here: the kernel may be holding it."""
        served = self._served.get(minor)
        if served is not None and served.backstore == parse_uio_name(text):
            self._tell_removed(minor)
        if served is None or served.waits:
            self._answer(message, 0)

    def _on_reconfig(self, message: Message, minor: int, _text: str) -> None:
        served = self._served.get(minor)
        if served is None:
            status = -errno.ENODEV
        else:
            change = change_of(message)
            status = self._status_of(lambda: self._listener.reconfig(served.handle, change))
        if served is None or served.waits:
            self._answer(message, status)

    def _on_unknown(self, message: Message, _minor: int, text: str) -> None:
        logger.debug("hub: command %d of the kernel about %s is not known here", message.command, text)

    def _answer(self, message: Message, status: int) -> None:
        attributes = {
            A_STATUS: status.to_bytes(4, sys.byteorder, signed=True),
            A_ID: message.attributes.get(A_ID, b""),
        }
        try:
            self._netlink.send(message.command + DONE, VERSION, attributes)
        except FailedError as error:
            logger.error("hub: %s; whoever made or removed a device may wait for ever", error)  # noqa: TRY400

    # -- devices

    def _look_again(self) -> None:
        now = uio_devices()
        for minor, served in list(self._served.items()):
            if parse_uio_name(now.get(minor, "")) != served.backstore:
                self._tell_removed(minor)
        for minor, text in now.items():
            if minor not in self._served:
                self._serve(minor, text, waits=waits_for_answers(text), is_new=True)

    def _serve(self, minor: int, text: str, *, waits: bool, is_new: bool) -> int:
        """Tells of a device, which is served from then on when that returns 0."""
        try:
            fd = os.open(f"/dev/uio{minor}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            logger.warning("hub: /dev/uio%d (%s): not opened: %s", minor, text, error.strerror)
            return -(error.errno or errno.EIO)
        device = HubDevice(next(self._handles), fd, f"uio{minor}", config_of_uio_name(text))
        try:
            if is_new:
                status = self._status_of(lambda: self._listener.added(device))
            else:
                status = self._take_over(device, text)
        finally:
            os.close(fd)  # whoever was told has one of its own
        if status == 0:
            self._served[minor] = Served(device.handle, parse_uio_name(text), waits)
        return status

    def _take_over(self, device: HubDevice, text: str) -> int:
        """Of a daemon that is gone: what it had taken is sent back to the initiator, which asks again."""
        backstore = parse_uio_name(text)
        if backstore is None:
            return -errno.ENODEV
        act(backstore, "block_dev", 1)
        act(backstore, "reset_ring", 1)
        try:
            return self._status_of(lambda: self._listener.added(device))
        finally:
            act(backstore, "block_dev", 0)

    def _tell_removed(self, minor: int) -> None:
        served = self._served.pop(minor)
        self._status_of(lambda: self._listener.removed(served.handle))

    def _status_of(self, tell: Callable[[], None]) -> int:
        try:
            tell()
        except Exception as failure:  # as at libtcmu's border: no failure of a listener ends the hub
            return status_of_failure(failure)
        return 0


def uio_devices(sysfs: Path = SYS) -> dict[int, str]:
    """The UIO name of each TCMU device of our subtype, by its minor."""
    found = {}
    for folder in (sysfs / "class/uio").glob("uio*"):
        text = read_kernel_text(folder / "name").strip()
        if folder.name[3:].isdecimal() and config_of_uio_name(text).startswith(f"{SUBTYPE}/"):
            found[int(folder.name[3:])] = text
    return dict(sorted(found.items()))


def waits_for_answers(uio_text: str) -> bool:
    """Whether the kernel holds up whoever made the device until somebody answers."""
    backstore = parse_uio_name(uio_text)
    text = read_kernel_text(backstore.path / "attrib/nl_reply_supported") if backstore else ""
    return text.strip() not in ("0", "-1")


def change_of(message: Message) -> Change:
    """Raises FormatError for a change of what we do not know."""
    if A_SIZE in message.attributes:
        return SizeChange(message.number(A_SIZE))
    if A_WRITE_CACHE in message.attributes:
        return WriteCacheChange(message.number(A_WRITE_CACHE) != 0)
    return ConfigChange(message.text(A_CONFIG))


def act(backstore: BackstoreId, action: str, value: int) -> None:
    """As libtcmu does; a kernel without the action has nothing to be undone either."""
    try:
        (backstore.path / "action" / action).write_text(str(value))
    except OSError as error:
        logger.warning("hub: %s: %s: %s", backstore.path, action, error.strerror)
