"""Every state a journal can be found in (architecture, section 6), as a user of ``nbd`` meets it.

The journal's layout is in csrc/image/journal.h.  Held and failed uppers are in
test_nbd_command.py and test_nbd_faults.py.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tcmu_overlaybd.native.source import crc32c
from tests.nbd.client import Client
from tests.nbd.disk_model import DiskModel
from tests.nbd.disks import DISK_SIZE
from tests.nbd.peer import data_of
from tests.nbd.serving import NbdProcess

NO_TIMED_FLUSH = {"TCMU_OVERLAYBD_TEST_FLUSH_INTERVAL_MS": "0"}
HEADER_SIZE, RECORD_SIZE = 4096, 64
STATE_AT, BOOT_ID_AT, HEADER_CRC_AT = 12, 16, 176
SEALED = 4
JOURNAL_SLOTS = 16384


@pytest.fixture
def folder(upper_of: list[str]) -> Path:
    return Path(upper_of[3])


@pytest.fixture
def killed(upper_of: list[str]) -> list[DiskModel]:
    """A disk whose process was killed after a flush and three more writes: its state after each."""
    model = DiskModel()
    states = []
    server = NbdProcess(*upper_of, environment=NO_TIMED_FLUSH)
    with Client(server.uri) as client:
        model.run(client, [["write", 0, 4096, 1], ["flush"]])
        states.append(DiskModel(content=model.content))
        for i in range(3):
            model.run(client, [["write", i * 2048, 4096, i + 2]])
            states.append(DiskModel(content=model.content))
        server.kill()
    return states


def content_of(arguments: list[str]) -> str:
    with NbdProcess(*arguments, environment=NO_TIMED_FLUSH) as server, Client(server.uri) as client:
        return str(client.read(0, DISK_SIZE))


def sha256(model: DiskModel) -> str:
    return hashlib.sha256(model.content).hexdigest()


def refusal(arguments: list[str]) -> str:
    """The sentence with which it is not opened."""
    code, _, stderr = NbdProcess(*arguments, ready=False).end()
    assert code == 1
    assert "Traceback" not in stderr
    return stderr


def change_header(journal: Path, at: int, value: bytes) -> None:
    """Of both, with the right CRC again."""
    content = bytearray(journal.read_bytes())
    content[at : at + len(value)] = value
    content[HEADER_CRC_AT : HEADER_CRC_AT + 4] = crc32c(bytes(content[:HEADER_CRC_AT]), 0).to_bytes(
        4, "little"
    )
    content[512 : 512 + HEADER_CRC_AT + 4] = content[: HEADER_CRC_AT + 4]
    journal.write_bytes(content)


def test_a_whole_journal_is_replayed(upper_of: list[str], killed: list[DiskModel]) -> None:
    assert content_of(upper_of) == sha256(killed[3])


def test_a_reader_sees_the_unflushed_writes_and_leaves_the_files_as_they_are(
    upper_of: list[str], killed: list[DiskModel], folder: Path
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert content_of([str(folder / "config.v1.json")]) == sha256(killed[3])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("torn", [1, 2, 3])
def test_a_torn_journal_is_replayed_up_to_the_first_bad_record(
    upper_of: list[str], killed: list[DiskModel], folder: Path, torn: int
) -> None:
    """Record 1 was flushed; record torn + 1 is the first that is damaged."""
    journal = folder / "index.journal"
    content = bytearray(journal.read_bytes())
    content[HEADER_SIZE + (torn + 1) * RECORD_SIZE + 20] ^= 1
    journal.write_bytes(content)
    assert content_of(upper_of) == sha256(killed[torn - 1])


def test_a_journal_of_another_boot_counts_for_nothing(
    upper_of: list[str], killed: list[DiskModel], folder: Path
) -> None:
    change_header(folder / "index.journal", BOOT_ID_AT, bytes(16))
    assert content_of(upper_of) == sha256(killed[0])


def test_a_copied_upper_is_refused_until_its_journal_is_given_up(
    upper_of: list[str], killed: list[DiskModel], folder: Path
) -> None:
    original = folder.rename(folder.with_name("original"))  # which stays, so that its inode does
    shutil.copytree(original, folder)
    before = (folder / "index.journal").read_bytes()
    assert "--drop-unflushed" in refusal(upper_of)
    assert (folder / "index.journal").read_bytes() == before
    assert content_of([*upper_of, "--drop-unflushed"]) == sha256(killed[0])
    assert content_of(upper_of) == sha256(killed[0])


def test_what_is_no_journal_is_laid_aside_and_not_overwritten(
    upper_of: list[str], killed: list[DiskModel], folder: Path
) -> None:
    (folder / "index.journal").write_bytes(b"mine" * 2048)
    assert content_of(upper_of) == sha256(killed[0])
    assert (folder / "index.journal.damaged").read_bytes() == b"mine" * 2048


def test_a_journal_without_its_headers_opens_on_what_was_flushed_and_says_what_is_lost(
    upper_of: list[str], killed: list[DiskModel], folder: Path
) -> None:
    journal = folder / "index.journal"
    journal.write_bytes(bytes(HEADER_SIZE) + journal.read_bytes()[HEADER_SIZE:])
    server = NbdProcess(*upper_of, environment=NO_TIMED_FLUSH)
    with Client(server.uri) as client:
        assert client.read(0, DISK_SIZE) == sha256(killed[0])
    stderr = server.stop()[2]
    assert "4 or more writes in it were acknowledged, but not flushed" in stderr
    assert (folder / "index.journal.damaged").exists()


def test_one_header_of_two_is_enough(upper_of: list[str], killed: list[DiskModel], folder: Path) -> None:
    with (folder / "index.journal").open("r+b") as journal:
        journal.write(b"torn" * 100)
    assert content_of(upper_of) == sha256(killed[3])


def test_a_sealed_upper_is_read_and_never_written(
    upper_of: list[str], killed: list[DiskModel], folder: Path
) -> None:
    content_of(upper_of)  # replays it, so that nothing hangs on the journal
    NbdProcess(*upper_of, environment=NO_TIMED_FLUSH).kill()
    change_header(folder / "index.journal", STATE_AT, SEALED.to_bytes(4, "little"))
    assert "sealed" in refusal(upper_of)
    assert content_of([str(folder / "config.v1.json")]) == sha256(killed[3])


def test_a_full_journal_makes_writes_wait_for_a_flush_and_not_fail(upper_of: list[str]) -> None:
    """No flush by the clock, none by the client: it comes because there is no free slot."""
    number, length = JOURNAL_SLOTS + 1000, 512
    with NbdProcess(*upper_of, environment=NO_TIMED_FLUSH) as server, Client(server.uri) as client:
        client.write_many(number, length)
        last = number - 1
        found = client.read_hex(last * length % (1 << 20), length)
    assert found == data_of(last + 1, length).hex()
