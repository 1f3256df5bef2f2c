"""The daemon's log: what one line is, how many there may be, and where they go."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import sys

import pytest

from tcmu_overlaybd.config.service_config import LogConfig
from tcmu_overlaybd.errors import FailedError
from tcmu_overlaybd.logs import output
from tcmu_overlaybd.logs.formats import MAX_TEXT, JsonFormatter, TextFormatter
from tcmu_overlaybd.logs.output import LimitedHandler
from tcmu_overlaybd.logs.rate_limit import BURST, MAX_KINDS, RATE, SAVED, WINDOW_S, RateLimit, kind_of

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def written():
    return io.StringIO()


@pytest.fixture
def log(clock, written):
    target = logging.StreamHandler(written)
    target.setFormatter(TextFormatter(for_journal=False))
    logger = logging.Logger("test")
    logger.addHandler(LimitedHandler(target, clock))
    return logger


def lines(written) -> list[str]:
    return written.getvalue().splitlines()


# ---- one line


def record(message: str, *arguments: object, level: int = logging.WARNING, exc_info=None):
    return logging.LogRecord("a.b", level, "file", 1, message, arguments, exc_info)


def failure():
    try:
        int("first\nsecond")
    except ValueError:
        return sys.exc_info()


def test_text_is_one_line_that_says_when_how_bad_who_and_what():
    line = TextFormatter(for_journal=False).format(record("disk %s", "x\ny\x1b[31m"))
    assert line.partition(" WARNING ")[2] == "a.b: disk x\\x0ay\\x1b[31m"
    assert line[4] == line[7] == "-"


def test_text_is_bounded_and_says_by_how_much():
    line = TextFormatter(for_journal=True).format(record("x" * (MAX_TEXT + 7)))
    assert line.endswith("x... (7 characters more)")


def test_journald_is_told_the_priority_of_every_line():
    text = TextFormatter(for_journal=True).format(record("oh", level=logging.ERROR, exc_info=failure()))
    assert all(line.startswith("<3>") for line in text.splitlines())
    assert text.splitlines()[0] == "<3>ERROR a.b: oh"
    assert "ValueError: invalid literal" in text


def test_json_is_one_object_a_line_with_known_keys():
    entry = json.loads(JsonFormatter(for_journal=False).format(record("ä\n%d", 1, exc_info=failure())))
    assert entry.keys() == {"time", "level", "logger", "message", "exception"}
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "a.b", "ä\\x0a1")
    assert entry["time"].endswith("+00:00")
    assert "ValueError: invalid literal" in entry["exception"].splitlines()[-1]
    assert "\n" not in JsonFormatter(for_journal=False).format(record("a\nb", exc_info=failure()))


def test_stderr_is_journald_s_only_when_it_is_the_very_socket(monkeypatch):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status = os.fstat(ours.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert output.is_journal(ours.fileno())
        assert not output.is_journal(theirs.fileno())
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not output.is_journal(ours.fileno())


# ---- how many


def test_what_repeats_is_summed_up_when_its_window_ends(log, clock, written):
    for number in range(BURST + 7):
        log.warning("device d: read at %d: gone", number)
    log.warning("another")
    assert len(lines(written)) == BURST + 1
    clock.now += WINDOW_S
    log.handlers[0].say_what_was_kept_back()
    assert lines(written)[-1].endswith(f"7 like this suppressed in 30 s: device d: read at {BURST + 6}: gone")
    log.warning("device d: read at 1: gone")
    assert len(lines(written)) == BURST + 3


def test_a_summary_comes_with_the_next_line_too(log, clock, written):
    for _ in range(BURST + 1):
        log.warning("x")
    clock.now += WINDOW_S
    log.info("something else")
    assert "1 like this suppressed" in lines(written)[-2]


def test_what_differs_in_more_than_numbers_is_another_kind():
    assert kind_of("read of 4096 bytes at 12288") == kind_of("read of 512 bytes at 0")
    assert kind_of("layer sha256:ab12cd34ef: 7") == kind_of("layer sha256:0012cd34ee: 9")
    assert kind_of("127.0.0.1:5000 refused") == kind_of("10.0.0.7:443 refused")
    assert kind_of("device disk1: gone") != kind_of("device disk2: gone")
    assert kind_of("read failed") != kind_of("write failed")


def test_one_kind_s_flood_hides_no_other(log, written):
    for _ in range(10_000):
        log.error("flood")
    log.error("the one that matters")
    assert "the one that matters" in lines(written)[-1]


def test_information_is_not_taken_for_repetition(log, written):
    for number in range(200):
        log.info("attached %d", number)
    assert len(lines(written)) == 200


def test_two_hundred_devices_that_fail_once_are_all_named(log, written):
    for number in range(200):
        log.error("disk%d: gone", number)
    assert len(lines(written)) == 200


def test_kinds_without_end_take_memory_with_one(clock):
    limit = RateLimit(clock.now)
    admitted = sum(
        limit.admit("a", logging.ERROR, f"kind-{'x' * (i % 97)}-{chr(0x4E00 + i)}", 10, clock.now)
        for i in range(3 * MAX_KINDS)
    )
    assert admitted <= MAX_KINDS + BURST
    assert len(limit._windows) <= MAX_KINDS + 1


def test_an_hour_of_ever_new_errors_is_less_than_ten_megabytes(log, clock, written):
    """The worst there can be: no two alike, each as long as a line may be, at 20 a second."""
    for number in range(20 * 3600):
        clock.now += 1 / 20
        log.error("%s %s", chr(0x4E00 + number % 20_000), "y" * MAX_TEXT)
    assert len(written.getvalue().encode()) < 10_000_000
    assert "like this suppressed" in written.getvalue()


def test_an_hour_of_one_error_at_a_thousand_a_second_is_less_than_a_megabyte(log, clock, written):
    for _ in range(360_000):  # the clock goes ten times as fast, so that the test does not
        clock.now += 1 / 100
        log.error("device d: read of 4096 bytes at 0: the registry is gone: %s", "z" * 200)
    assert len(written.getvalue()) < MIB


def test_rate_and_savings_keep_an_hour_below_ten_megabytes():
    assert RATE * 3600 + SAVED < 9_000_000


# ---- where to


def test_a_file_is_renamed_when_it_has_grown_and_so_many_are_kept(tmp_path):
    file = tmp_path / "log"
    logger = logging.Logger("test")
    output.install(logger, LogConfig(log_path=str(file), log_size_mb=1, log_rotate_num=2))
    for number in range(2000):
        logger.debug("%d %s", number, "x" * 1900)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= MIB for path in tmp_path.iterdir())


def test_a_file_that_cannot_be_opened_is_a_sentence(tmp_path):
    with pytest.raises(FailedError, match="the log cannot be opened: No such file"):
        output.install(logging.Logger("test"), LogConfig(log_path=str(tmp_path / "no/log")))


def test_json_is_chosen_by_the_configuration(tmp_path):
    file = tmp_path / "log"
    logger = logging.Logger("test")
    output.install(logger, LogConfig(log_path=str(file), log_format="json"))
    logger.error("oh")
    assert json.loads(file.read_text())["message"] == "oh"
