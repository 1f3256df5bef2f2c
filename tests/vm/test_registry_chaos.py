"""fio verifies a disk of a registry while everything goes wrong (tests/chaos does it without the kernel).

The daemon is killed, the registry too, answers are spoilt, tokens expire, files of the
cache are damaged, the cache's disk is too small for the image, and other disks come and
go.  The order of events is the seed's (``OBD_CHAOS_SEED``); the account of a run is in
``build/chaos``.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_disk import small_tmpfs
from vm_daemon import VmDaemon, run, wait_until
from vm_fio import Fio, reads_of
from vm_images import MIB, make_layer
from vm_registry import RemoteImage, push_file_system, write_password
from vm_soak import usual_or_soak

from tcmu_overlaybd.errors import MissingError, OverlayBDError
from tests.chaos.faulty_proxy import FaultyProxy
from tests.chaos.story import Account
from tests.chaos.vandal import Vandal
from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import ANNA, USERS, Clients
from tests.registry.http_faults import Stall
from tests.registry.images import Blob, push_image
from tests.registry.token_service import TokenService

SECONDS = float(os.environ.get("OBD_CHAOS_SECONDS", usual_or_soak("60", "900")))
SEED = int(os.environ.get("OBD_CHAOS_SEED", "2026"))
LOGS = Path(__file__).parents[2] / "build/chaos"
SIZE = 48 * MIB
CACHE_DISK = "48m"  # of 70 MiB that both images have
TOKEN_SECONDS = 15
CONFIG = {"device": {"ioTimeoutMs": 40_000}, "cache": {"freeFloor": MIB}}
VERIFIED = ("--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--buffer_compress_percentage=50")
ENDINGS = 120  # seconds that what waits may take once nothing goes wrong any more


@pytest.fixture
def registry(tmp_path) -> Iterator[DockerRegistry]:
    with (
        TokenService(tmp_path / "tokens", USERS) as tokens,
        DockerRegistry(tmp_path / "registry", token=tokens) as running,
    ):
        tokens.lifetime_s = TOKEN_SECONDS
        yield running


@pytest.fixture
def proxy(registry) -> Iterator[FaultyProxy]:
    """Without stalls: the daemon gives each its 10 s, and a few of them are most of the time there is."""
    with FaultyProxy(registry.host, random.Random(SEED), leave_out=(Stall,)) as running:
        yield running


@pytest.fixture
def verified(registry, proxy, tmp_path) -> str:
    """The reference of a disk that fio has written, so that it knows what belongs where."""
    raw, clients = tmp_path / "verified.raw", Clients()
    write = ("--rw=write", "--bs=4k", "--do_verify=0", f"--size={SIZE}", *VERIFIED)
    run("fio", "--name=job", f"--filename={raw}", *write)
    push_image(
        clients(registry.host, ANNA), "vm/verified", [Blob(make_layer(raw, "--zfile", "lz4").read_bytes())]
    )
    clients.close()
    return f"{proxy.host}/vm/verified:latest"


@pytest.fixture
def other(registry, proxy, tmp_path) -> RemoteImage:
    return push_file_system(registry, tmp_path, proxy.host)


@pytest.fixture
def daemon(make_daemon, proxy, tmp_path) -> Iterator[VmDaemon]:
    """Its cache is on a disk of its own, that it fills."""
    cache = tmp_path / "state/cache"
    cache.parent.mkdir()
    with small_tmpfs(cache, CACHE_DISK):
        made = make_daemon(config=CONFIG, **write_password(tmp_path, proxy.host))
        yield made
        made.clean_up()
        made.stop()


@pytest.fixture
def account(tmp_path) -> Iterator[Account]:
    yield Account(tmp_path / "chaos.log")
    LOGS.mkdir(parents=True, exist_ok=True)
    for name in ("chaos", "daemon"):
        shutil.copyfile(tmp_path / f"{name}.log", LOGS / f"vm-{name}-{SEED}.log")


class Trouble:
    """What goes wrong, one thing at a time."""

    def __init__(
        self, daemon: VmDaemon, registry: DockerRegistry, proxy: FaultyProxy, account: Account
    ) -> None:
        self._rng = random.Random(SEED)
        self._daemon = daemon
        self._registry = registry
        self._proxy = proxy
        self._vandal = Vandal(daemon.folder / "state/cache/v1", self._rng)
        self._account = account

    def make(self) -> None:
        events = (self.spoil, self.damage, self.kill_daemon, self.kill_registry)
        self._rng.choices(events, (5, 5, 2, 1))[0]()

    def pause_s(self) -> float:
        """Until the next one."""
        return self._rng.uniform(0.2, 2)

    def spoil(self) -> None:
        self._proxy.rate = self._rng.choice([0, 0, 0.02, 0.05, 0.15])
        self._account.note("faults", f"{self._proxy.rate:.0%} of answers")

    def damage(self) -> None:
        self._account.note("damage", self._vandal.damage_live())

    def kill_daemon(self) -> None:
        self._daemon.kill()
        self._account.note("daemon killed")
        for _ in range(self._rng.randrange(3)):
            self._account.note("damage while away", self._vandal.damage_idle())
        self._daemon.start()

    def kill_registry(self) -> None:
        away = self._rng.uniform(0, 3)
        self._registry.kill()
        self._account.note("registry killed", f"for {away:.1f} s")
        time.sleep(away)
        self._registry.start()


def come_and_go(daemon: VmDaemon, image: RemoteImage, account: Account, is_over: threading.Event) -> int:
    """Attaches, compares, detaches, again and again; how often a disk was not its image."""
    nr_wrong = number = 0
    while not is_over.is_set():
        number += 1
        name = f"visitor{number}"
        try:
            disk = Path(daemon.attach(image.reference, name=name, timeout=60).disk)
            account.note("came", name)
            nr_wrong += disk.read_bytes() != image.raw.read_bytes()
        except (OverlayBDError, OSError) as error:
            account.note("did not come", f"{name} {type(error).__name__}: {error}")
        wait_until(lambda name=name: is_gone(daemon, name), ENDINGS)
        account.note("went", name)
    return nr_wrong


def is_gone(daemon: VmDaemon, name: str) -> bool:
    """Whether it could be detached; not while the daemon is away."""
    try:
        daemon.detach(name, force=True)
    except MissingError:
        return True
    except OverlayBDError:
        return False
    return True


@pytest.mark.timeout(SECONDS + 400)
def test_fio_finds_no_wrong_block(daemon, registry, proxy, verified, other, account):
    disk = daemon.attach(verified, name="main").disk
    trouble, is_over = Trouble(daemon, registry, proxy, account), threading.Event()
    reads = ("--readonly", "--rw=randread", "--bs=4k", "--iodepth=16", "--time_based", f"--runtime={SECONDS}")
    with Fio(f"--filename={disk}", *reads, *VERIFIED, forever=False) as job, ThreadPoolExecutor(1) as pool:
        visitor = pool.submit(come_and_go, daemon, other, account, is_over)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            trouble.make()
            account.note("so far", f"{reads_of(disk.removeprefix('/dev/'))} reads")
            time.sleep(trouble.pause_s())
        proxy.rate = 0
        is_over.set()
        report = job.wait(ENDINGS)
        nr_wrong = visitor.result(ENDINGS)
    read = report["read"]
    slowest_s = read["clat_ns"]["max"] / 1e9
    account.note(
        "in all",
        f"seed {SEED}, {SECONDS:g} s: fio verified {read['total_ios']} reads, error {report['error']},"
        f" slowest {slowest_s:.1f} s; {nr_wrong} disks were not their images; {dict(account.counts)}",
    )
    assert report["error"] == 0, report["said"]
    assert read["total_ios"] > 200
    assert nr_wrong == 0
    assert account.counts["came"] > 0
