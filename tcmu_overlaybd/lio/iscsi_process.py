"""The process that makes and removes an iSCSI target, with rtslib; see ``iscsi``.

It reads one request from its standard input, and reports as ``obd-lio-helper`` does: lines
of what was done on stdout, the sentence of a failure on stderr, an exit code of csrc/helper/step.h.
Its deadline is a timer whose signal raises where it runs, so it takes back what it made.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rtslib_fb.fabric import ISCSIFabricModule
from rtslib_fb.node import CFSNode
from rtslib_fb.target import LUN, TPG, MappedLUN, NetworkPortal, NodeACL, Target
from rtslib_fb.tcm import UserBackedStorageObject
from rtslib_fb.utils import RTSLibError

from tcmu_overlaybd.config.decoding import decode_json
from tcmu_overlaybd.lio.iscsi import ExportRequest, Job, UnexportRequest

# enum outcome of csrc/helper/step.h
FAILED, BUSY, MISSING, LATE = 1, 3, 4, 5
UNDO_GRACE_S = 5.0


class LateError(Exception):
    """The deadline has passed."""


class NoFabricError(Exception):
    """The kernel module is not there."""


class LoggedInError(Exception):
    """An initiator uses the target."""


def main() -> int:
    request = decode_json(sys.stdin.buffer.read(), Job).request
    signal.signal(signal.SIGALRM, _raise_late)
    signal.setitimer(signal.ITIMER_REAL, request.deadline_s)
    try:
        if isinstance(request, ExportRequest):
            export(request)
        else:
            unexport(request)
    except LateError:
        return _fail(LATE, f"{request.iqn}: the deadline passed")
    except LoggedInError as error:
        return _fail(BUSY, str(error))
    except NoFabricError as error:
        return _fail(
            MISSING, f"{request.iqn}: the kernel has no iSCSI target: {error}; modprobe iscsi_target_mod"
        )
    except (RTSLibError, OSError) as error:
        return _fail(FAILED, f"{request.iqn}: {error}")
    return 0


def export(request: ExportRequest) -> None:
    """The target, or nothing of it.  It is enabled last: nobody meets one that is half made."""
    with _step("fabric"):
        fabric = _fabric()
    with _step("target"):
        target = Target(fabric, request.iqn, mode="create")
    try:
        _fill(TPG(target, 1, mode="create"), request)
    except BaseException:
        signal.setitimer(signal.ITIMER_REAL, UNDO_GRACE_S)
        with suppress(RTSLibError, OSError):
            _delete(target)
        raise


def _fabric() -> Any:
    """Loads the module when it has to."""
    try:
        return ISCSIFabricModule()
    except RTSLibError as error:
        raise NoFabricError(str(error)) from error


def _fill(tpg: Any, request: ExportRequest) -> None:
    with _step("lun"):
        backstore = UserBackedStorageObject(request.backstore, index=request.hba_number)
        lun = LUN(tpg, 0, storage_object=backstore)
    with _step("access"):
        tpg.set_attribute("authentication", int(request.chap is not None))
        if request.initiator:
            _admit_one(tpg, lun, request)
        else:
            _admit_all(tpg, request)
    with _step("portal"):
        NetworkPortal(tpg, request.host, request.port)
        tpg.enable = True


def _admit_one(tpg: Any, lun: Any, request: ExportRequest) -> None:
    tpg.set_attribute("generate_node_acls", 0)
    acl = NodeACL(tpg, request.initiator, mode="create")
    MappedLUN(acl, 0, tpg_lun=lun)
    _set_password(acl, request)


def _admit_all(tpg: Any, request: ExportRequest) -> None:
    """Whoever knows the password; the kernel makes an ACL for each as it comes."""
    for name, value in (("generate_node_acls", 1), ("cache_dynamic_acls", 1), ("demo_mode_write_protect", 0)):
        tpg.set_attribute(name, value)
    _set_password(tpg, request)


def _set_password(node: CFSNode, request: ExportRequest) -> None:
    """Written here, since rtslib's setter of a TPG swallows what goes wrong."""
    if request.chap is None:
        return
    for attribute, text in (("userid", request.chap.user), ("password", request.chap.password)):
        Path(node.path, "auth", attribute).write_text(text)


def unexport(request: UnexportRequest) -> None:
    fabric = _fabric()
    if not Path(fabric.path, request.iqn).is_dir():
        return
    target = Target(fabric, request.iqn, mode="lookup")
    users = [user for tpg in target.tpgs for user in initiators_of(tpg)]
    if request.claim and users:
        raise LoggedInError(f"in use: {', '.join(users)} is logged in to {request.iqn}")
    with _step("unexport"):
        _delete(target)


def _delete(target: Any) -> None:
    """rtslib disables each TPG first, which ends its sessions."""
    target.delete()


def initiators_of(tpg: Any) -> list[str]:
    """Names of those that are logged in, by an ACL of their own or by the password alone."""
    named = [acl.node_wwn for acl in tpg.node_acls if acl.session is not None]
    dynamic = Path(tpg.path, "dynamic_sessions")
    found = dynamic.read_text().replace("\0", "\n").split() if dynamic.exists() else []
    return [*named, *found]


@contextmanager
def _step(name: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    print(f"done {name} {int((time.monotonic() - begun) * 1e6)}", flush=True)


def _raise_late(*_: object) -> None:
    raise LateError


def _fail(code: int, sentence: str) -> int:
    print(" ".join(sentence.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
