"""Which of the two hubs a daemon uses.

libtcmu is what targetcli's world is used to, and with it a refusal of ours reaches whoever asked.
But it answers for every device of the machine, and so does tcmu-runner, and the kernel takes
the first answer: beside another daemon, ours must be the netlink hub.  That is what "auto" takes
there, and where libtcmu is not installed.  It is decided at start; ``doctor`` says when
another daemon came later.
"""

from __future__ import annotations

import ctypes.util
import logging
import time
from typing import Literal

from tcmu_overlaybd.config.service_config import HubChoice
from tcmu_overlaybd.lio.config_string import SUBTYPE
from tcmu_overlaybd.lio.netlink_hub import NetlinkHub
from tcmu_overlaybd.lio.tcmu_listeners import RUNNER, Listener, other_listeners
from tcmu_overlaybd.native.hub import Hub, HubListener, LibtcmuHub

logger = logging.getLogger(__name__)

HubKind = Literal["libtcmu", "netlink"]

PREDECESSOR_S = 0.3  # a daemon that has just let us have its lock may take so long to be gone
POLL_S = 0.02


def choose_hub(wanted: HubChoice) -> tuple[HubKind, list[Listener]]:
    """The hub, and the other daemons that are there.  The caller holds the daemon's lock."""
    others = lasting_listeners()
    if wanted != "auto":
        return wanted, others
    if others:
        logger.info("hub: netlink, since %s hears of our devices, too", others[0])
        return "netlink", others
    if ctypes.util.find_library("tcmu") is None:
        logger.info("hub: netlink, since libtcmu is not installed")
        return "netlink", others
    return "libtcmu", others


def lasting_listeners() -> list[Listener]:
    """Those that are not a daemon of ours at its end."""
    deadline = time.monotonic() + PREDECESSOR_S
    while True:
        others = other_listeners()
        is_certain = not others or any(other.program == RUNNER for other in others)
        if is_certain or time.monotonic() > deadline:
            return others
        time.sleep(POLL_S)


def open_hub(kind: HubKind, description: str, listener: HubListener) -> Hub:
    """Raises UnavailableError without libtcmu or the kernel module.

    description: of our config strings, for targetcli.
    """
    if kind == "netlink":
        return NetlinkHub(listener)
    return LibtcmuHub(SUBTYPE, description, listener)
