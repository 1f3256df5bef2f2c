"""A device in the kernel: its backstore, and the fabric through which it is a disk somewhere.

The helper program makes a loopback port together with the backstore; an iSCSI target is
another process's work, after it, and goes before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

from tcmu_overlaybd.errors import OverlayBDError
from tcmu_overlaybd.lio import helper, iscsi
from tcmu_overlaybd.lio.backstore import Backstore
from tcmu_overlaybd.lio.fabric import LoopbackPort
from tcmu_overlaybd.lio.helper import HelperReport
from tcmu_overlaybd.lio.iscsi import Chap, IscsiTarget

Port = LoopbackPort | IscsiTarget | None
UNDO_TIMEOUT_S = 10.0
MIN_TIMEOUT_S = 1.0


def make(
    backstore: Backstore,
    port: Port,
    chap: Chap | None,
    timeout_s: float,
    on_late: Callable[[], None] = lambda: None,
) -> HelperReport:
    """Returns when a loopback disk can be read, or initiators can log in.

    When it raises, nothing is left of the device, except after TimeoutExpiredError: then
    the kernel may still be at it.
    """
    if not isinstance(port, IscsiTarget):
        return helper.attach(backstore, port, timeout_s, on_late)
    deadline = time.monotonic() + timeout_s
    report = helper.attach(backstore, None, timeout_s, on_late)
    try:
        left = max(deadline - time.monotonic(), MIN_TIMEOUT_S)
        exported = iscsi.export(port, backstore.hba, backstore.name, chap, left)
    except OverlayBDError:
        remove(backstore.hba, backstore.name, port, UNDO_TIMEOUT_S, claim=False)
        raise
    report.steps += exported.steps
    return report


def remove(
    hba: str,
    name: str,
    port: Port,
    timeout_s: float,
    *,
    claim: bool,
    spare_flush: bool = False,
    abandon: bool = False,
) -> None:
    """Removes what there is of the device.

    claim refuses (BusyError) a disk that is mounted or otherwise held, and a target that an
    initiator is logged in to.  spare_flush and abandon as in helper.detach.
    """
    if not isinstance(port, IscsiTarget):
        helper.detach(hba, name, port, timeout_s, claim=claim, spare_flush=spare_flush, abandon=abandon)
        return
    deadline = time.monotonic() + timeout_s
    with helper.failing_ring(hba, name, timeout_s) if abandon else nullcontext():
        iscsi.unexport(port, timeout_s, claim=claim)
    helper.detach(hba, name, None, max(deadline - time.monotonic(), MIN_TIMEOUT_S), claim=claim)
