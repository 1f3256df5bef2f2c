"""The table of kill points is complete: every hook of the sources has its row and its test."""

from __future__ import annotations

import re
from pathlib import Path

import kill_points

ROOT = Path(__file__).parents[2]
HELPER_STEP = re.compile(
    r'(?:folder_make|folder_remove|link_remove|attribute_write(?:_number)?|step_done)\("([a-z-]+)"'
)


def hooks_of_c() -> set[str]:
    texts = [path.read_text() for path in ROOT.glob("csrc/*/*.c")]
    return {name for text in texts for name in re.findall(r'HOOK\("([^"]+)"\)', text)}


def hooks_of_python() -> set[str]:
    texts = [path.read_text() for path in ROOT.glob("tcmu_overlaybd/**/*.py")]
    return {name for text in texts for name in re.findall(r'\bhook\("([^"]+)"\)', text)}


def test_every_hook_has_a_row():
    assert hooks_of_c() | hooks_of_python() == set(kill_points.WALKED_BY)


def test_every_step_of_the_helper_has_a_row():
    texts = [path.read_text() for path in ROOT.glob("csrc/helper/*.c")]
    steps = {name for text in texts for name in HELPER_STEP.findall(text)} | {"can_queue", "cmd_per_lun"}
    listed = {*kill_points.HELPER_ATTACH, *kill_points.HELPER_DETACH, *kill_points.HELPER_OTHER}
    assert steps == listed


def test_every_test_that_the_table_names_is_there():
    for name in set(kill_points.WALKED_BY.values()):
        assert (ROOT / name).is_file(), name
