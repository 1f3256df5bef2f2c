"""A process that dies at any step of the cache's writing leaves a cache that the next one reads right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kill_points import CACHE, CACHE_DROP

from tcmu_overlaybd.image.open import open_image
from tests.registry.images import push_image
from tests.remote.image_store import make_stack, store_in

ROOT = Path(__file__).parents[2]
READ_TIMEOUT_MS = 60_000
LAYER = 3_000_000  # of a layer that nothing can make smaller; there are two
LIMIT = 2 << 20  # bytes: less than what is read, so that chunks must go


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return make_stack(tmp_path_factory.mktemp("stack"), 2, LAYER)


@pytest.fixture
def reference(open_registry, client_of, repository, stack):
    push_image(client_of(open_registry.host), repository, stack[0])
    return f"{open_registry.host}/{repository}"


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("point", [*CACHE, *CACHE_DROP])
def test_killed_at_a_step_the_cache_is_sound(reference, stack, tmp_path, point, nth):
    if nth == 3 and not point.startswith("cache.chunk"):
        nth = 2  # each of the two blobs has its files made once
    command = [sys.executable, "-m", "tests.remote.cache_process", tmp_path, reference, str(LIMIT)]
    environment = {**os.environ, "OBD_TEST_KILL_AT": f"{point}:{nth}", "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    died = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr
    with store_in(tmp_path, has_stand_in=False) as store, open_image(reference, store=store) as opened:
        assert opened.image.read(opened.image.size, 0, READ_TIMEOUT_MS) == stack[1]
