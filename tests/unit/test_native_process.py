"""What C does for the whole process; each test in a process of its own, which it changes for good."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

LOCKED_KIB = """
import re
from pathlib import Path
from tcmu_overlaybd import errors
from tcmu_overlaybd.native import process

def locked_kib():
    return int(re.search(r"VmLck:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

"""


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_silent_log_gives_nothing_and_a_closed_one_ends() -> None:
    run("""if True:
        import threading, time
        from tcmu_overlaybd.native import process
        assert process.next_log_record(1) is None
        threading.Timer(0.05, process.close_log).start()
        try:
            process.next_log_record(60_000)
        except EOFError:
            pass
        else:
            raise SystemExit("the log did not end")
    """)


def has_capability(number: int) -> bool:
    effective = re.search(r"CapEff:\s+(\w+)", Path("/proc/self/status").read_text(encoding="ascii"))
    return effective is not None and bool(int(effective[1], 16) >> number & 1)


CAP_IPC_LOCK, CAP_SYS_RESOURCE = 14, 24


@pytest.mark.skipif(
    not (has_capability(CAP_SYS_RESOURCE) and has_capability(CAP_IPC_LOCK)),
    reason="only who has CAP_SYS_RESOURCE and CAP_IPC_LOCK may become an I/O flusher with locked memory",
)
def test_guarded_memory_is_locked_where_it_is_touched() -> None:
    run(
        LOCKED_KIB
        + """if True:
        process.guard_memory()
        assert 0 < locked_kib() < 100_000, "address space was locked, not memory"
        """
    )


@pytest.mark.skipif(
    has_capability(CAP_SYS_RESOURCE) or not has_capability(CAP_IPC_LOCK), reason="it would not be refused"
)
def test_memory_is_locked_even_when_the_kernel_refuses_the_flusher() -> None:
    run(
        LOCKED_KIB
        + """if True:
        try:
            process.guard_memory()
        except errors.FailedError as error:
            assert "cannot become an I/O flusher: Operation not permitted" in str(error)
        else:
            raise SystemExit("it was not refused")
        assert 0 < locked_kib() < 100_000
        """
    )
