"""Blobs of a configuration that nobody has looked up a manifest for, and tokens while an image is open."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tcmu_overlaybd.config.image_config import ImageConfig, Lower
from tcmu_overlaybd.errors import AuthenticationError, FailedError, MissingError
from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.registry.credentials import Credential
from tcmu_overlaybd.registry.deadline import Deadline
from tests.registry.docker_registry import DockerRegistry
from tests.registry.fixtures import ANNA, USERS
from tests.registry.http_faults import Delay
from tests.registry.images import push_image
from tests.registry.token_service import TokenService
from tests.remote.image_store import make_stack, store_in, write_password

READ_TIMEOUT_MS = 30_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return make_stack(tmp_path_factory.mktemp("stack"), 2, 2 << 20)


def config_of(base: str, repository: str, layers, *, knows_sizes: bool = True) -> ImageConfig:
    """As a snapshotter writes it; nobody has looked at a manifest."""
    lowers = (Lower(digest=layer.digest, size=len(layer.data) if knows_sizes else 0) for layer in layers)
    return ImageConfig(repo_blob_url=f"{base}/v2/{repository}/blobs", lowers=tuple(lowers))


def assert_is_read(source, store, disk: bytes) -> None:
    with open_image(source, store=store) as opened:
        assert opened.image.read(opened.image.size, 0, READ_TIMEOUT_MS) == disk


def test_a_password_is_given_when_the_registry_wants_one(
    password_registry, client_of, repository, stack, tmp_path
):
    push_image(client_of(password_registry.host, ANNA), repository, stack[0])
    write_password(tmp_path, password_registry.host, ANNA)
    config = config_of(f"http://{password_registry.host}", repository, stack[0])
    with store_in(tmp_path) as store:
        assert_is_read(config, store, stack[1])


def test_a_wrong_password_ends_the_read_and_the_right_one_is_heard_without_a_restart(
    password_registry, client_of, repository, stack, tmp_path
):
    push_image(client_of(password_registry.host, ANNA), repository, stack[0])
    write_password(tmp_path, password_registry.host, Credential("anna", "wrong"))
    config = config_of(f"http://{password_registry.host}", repository, stack[0])
    with store_in(tmp_path) as store:
        with pytest.raises(FailedError, match="user name or password is wrong"):
            open_image(config, store=store)
        write_password(tmp_path, password_registry.host, ANNA)
        assert_is_read(config, store, stack[1])


def test_sizes_that_no_configuration_says_are_asked_for(
    open_registry, client_of, repository, stack, tmp_path
):
    push_image(client_of(open_registry.host), repository, stack[0])
    base = f"http://{open_registry.host}"
    with store_in(tmp_path) as store:
        assert_is_read(config_of(base, repository, stack[0], knows_sizes=False), store, stack[1])
        with pytest.raises(MissingError, match="there is no blob"):
            open_image(config_of(base, "t/nothing", stack[0], knows_sizes=False), store=store)


def test_one_token_serves_all_layers_of_a_repository(
    token_registry, token_service, client_of, repository, stack, tmp_path
):
    push_image(client_of(token_registry.host, ANNA), repository, stack[0])
    write_password(tmp_path, token_registry.host, ANNA)
    asked = token_service.nr_asked
    with store_in(tmp_path) as store:
        assert_is_read(f"{token_registry.host}/{repository}", store, stack[1])
    assert token_service.nr_asked == asked + 1


def test_a_token_that_expires_is_renewed_while_the_image_is_open(client_of, stack, tmp_path):
    """It lives a second, by the registry's clock too; the disk is read over several of them."""
    with (
        TokenService(tmp_path / "tokens", USERS) as service,
        DockerRegistry(tmp_path / "registry", token=service) as registry,
    ):
        push_image(client_of(registry.host, ANNA), "t/x", stack[0])
        write_password(tmp_path, registry.host, ANNA)
        service.lifetime_s = 1
        with (
            store_in(tmp_path, limit_bytes=1 << 20) as store,
            open_image(f"{registry.host}/t/x", store=store) as opened,
        ):
            asked = service.nr_asked
            size = opened.image.size
            for _ in range(6):
                assert opened.image.read(size, 0, READ_TIMEOUT_MS) == stack[1]
                if service.nr_asked > asked + 1:
                    return
                time.sleep(service.lifetime_s)
        pytest.fail("no token was renewed")


def test_a_repository_that_is_closed_to_us_says_so(password_registry, client_of, repository, stack, tmp_path):
    push_image(client_of(password_registry.host, ANNA), repository, stack[0])
    config = config_of(f"http://{password_registry.host}", repository, stack[0])
    with store_in(tmp_path) as store:
        with pytest.raises(AuthenticationError, match="a password is needed"):
            open_image(f"{password_registry.host}/{repository}", store=store)
        with pytest.raises(FailedError, match="a password is needed"):
            open_image(config, store=store)


def test_a_token_service_that_hangs_delays_no_other_registry(client_of, open_registry, tmp_path):
    """Ten images wait for it, more than there are threads that ask for tokens."""
    (late, other), disk = make_stack(tmp_path, 2, 1 << 20)
    with (
        TokenService(tmp_path / "tokens", USERS) as service,
        DockerRegistry(tmp_path / "registry", token=service) as registry,
    ):
        push_image(client_of(registry.host, ANNA), "t/x", [late])
        push_image(client_of(open_registry.host), "t/other", [other])
        asked = service.nr_asked
        service.server.fault("/token", *[Delay(60)] * 100)
        hanging = config_of(f"http://{registry.host}", "t/x", [late])
        reachable = config_of(f"http://{open_registry.host}", "t/other", [other])
        with store_in(tmp_path) as store, ThreadPoolExecutor(10) as pool:
            waiting = [
                pool.submit(open_image, hanging, store=store, deadline=Deadline.after(20)) for _ in range(10)
            ]
            while service.nr_asked == asked:
                time.sleep(0.01)
            with open_image(reachable, store=store) as opened:
                half = len(disk) // 2
                assert opened.image.read(half, half, READ_TIMEOUT_MS) == disk[half:]
            assert not any(one.done() for one in waiting), "nothing hung"
            store.close()
            assert all(one.exception() for one in waiting)
