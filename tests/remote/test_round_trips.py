"""How many round trips it takes until an image of ten layers is open, from a registry far away.

The registry is behind a proxy that makes each round trip, connecting included, longer by a
known time.  What opening takes longer by than without, divided by that time, is the number
of round trips that one had to wait for after another.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tcmu_overlaybd.image.open import open_image
from tcmu_overlaybd.registry.credentials import Credential
from tests.registry.fixtures import ANNA
from tests.registry.images import Blob, push_image
from tests.registry.nginx import tls_proxy
from tests.remote.delaying_proxy import DelayingProxy
from tests.remote.image_store import make_stack, store_in, write_password

NR_LAYERS = 10
LAYER_BYTES = 3 << 20
REPOSITORY = "t/ten-layers"
MAX_ROUND_TRIPS = 8
# The longer the less does it matter what else this machine does.
DELAY_S = 0.4


@pytest.fixture(scope="module")
def ten_layers(tmp_path_factory) -> list[Blob]:
    return make_stack(tmp_path_factory.mktemp("stack"), NR_LAYERS, LAYER_BYTES)[0]


def round_trips(proxy: DelayingProxy, folder: Path, credential: Credential | None, ca: Path | None) -> float:
    """Of opening the image behind proxy with nothing cached."""
    took = []
    for delay_s in (0.0, DELAY_S):
        proxy.delay_s = delay_s
        place = folder / str(delay_s)
        place.mkdir()
        if credential is not None:
            write_password(place, proxy.host, credential)
        with store_in(place, ca_file=ca) as store:
            begun = time.monotonic()
            with open_image(f"{proxy.host}/{REPOSITORY}", store=store) as opened:
                took.append(time.monotonic() - begun)
                assert len(opened.layers) == NR_LAYERS
    return (took[1] - took[0]) / DELAY_S


@pytest.mark.parametrize("kind", ["open", "password"])
def test_ten_layers_are_open_after_eight_round_trips(kind, request, client_of, ten_layers, tmp_path):
    registry = request.getfixturevalue(f"{kind}_registry")
    credential = ANNA if kind == "password" else None
    push_image(client_of(registry.host, credential), REPOSITORY, ten_layers)
    with DelayingProxy(registry.port, DELAY_S) as proxy:
        taken = round_trips(proxy, tmp_path, credential, None)
    print(f"a registry with {kind}: ten layers open after {taken:.1f} round trips")
    assert taken < MAX_ROUND_TRIPS + 0.5


def test_with_a_token_and_tls_the_round_trips_are_printed(
    token_registry, authority, client_of, ten_layers, tmp_path, capsys
):
    """Its handshake is two more for each connection, the token service at least one."""
    push_image(client_of(token_registry.host, ANNA), REPOSITORY, ten_layers)
    with (
        tls_proxy(tmp_path / "nginx", token_registry.host, authority.issue("nginx")) as nginx,
        DelayingProxy(nginx.port, DELAY_S) as proxy,
    ):
        taken = round_trips(proxy, tmp_path, ANNA, authority.ca_file)
    with capsys.disabled():
        print(f"\n  token and TLS: ten layers open after {taken:.1f} round trips")
    assert taken < 2 * MAX_ROUND_TRIPS
