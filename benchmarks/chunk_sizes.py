"""What the size of a chunk costs: bytes fetched and requests made, of a real image over a real file system.

    vagrant/umlrun -m 2G -t 900 -- .venv/bin/python -m benchmarks.chunk_sizes LAYER...

Pushes the layers (the demo's, say: build/demo/*.tar, lowest first) to a registry of its own,
and for each size, from an empty cache: starts a daemon, attaches the image, mounts it, reads
one file, then all names, then all files.  What is counted is what the registry's log says.
One JSON object a size.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.guest import daemon, prepare_kernel
from demo.files import regular_files
from tcmu_overlaybd.daemon.client import Client
from tcmu_overlaybd.daemon.messages import AttachRequest, DetachRequest
from tcmu_overlaybd.registry.client import RegistryClient
from tcmu_overlaybd.registry.transport import Transport
from tests.registry.docker_registry import DockerRegistry
from tests.registry.images import Blob, push_image

REPOSITORY = "bench/image"
ANSWER = re.compile(r"http\.request\.uri=\S*/blobs/sha256:\S* .*http\.response\.written=(\d+)")


@dataclass(frozen=True)
class Traffic:
    """What the registry has sent of blobs since it was started."""

    requests: int
    sent_bytes: int

    @classmethod
    def until_now(cls, registry: DockerRegistry) -> "Traffic":
        answers = ANSWER.findall(registry.log.read_text())
        return cls(len(answers), sum(map(int, answers)))

    def since(self, earlier: "Traffic") -> "Traffic":
        return Traffic(self.requests - earlier.requests, self.sent_bytes - earlier.sent_bytes)


@contextmanager
def mounted(client: Client, reference: str) -> Iterator[Path]:
    disk = client.attach(AttachRequest(source=(reference,), name="image")).disk
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        subprocess.run(["mount", "-o", "ro", disk, folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)
            client.detach("image", DetachRequest(force=True))


def measure(registry: DockerRegistry, folder: Path, chunk_size: int) -> dict[str, object]:
    config = folder / f"overlaybd-{chunk_size}.json"
    cache = {"dir": str(folder / f"cache-{chunk_size}"), "chunkSize": chunk_size, "freeFloor": 0}
    config.write_text(json.dumps({"cache": cache}))
    before, begin = Traffic.until_now(registry), time.monotonic()

    def cost_since() -> dict[str, float]:
        seconds = time.monotonic() - begin
        return {**asdict(Traffic.until_now(registry).since(before)), "seconds": round(seconds, 2)}

    with (
        daemon(folder, config) as (client, _),
        mounted(client, f"{registry.host}/{REPOSITORY}:latest") as tree,
    ):
        (tree / next(regular_files(tree))).read_bytes()
        first = cost_since()
        paths = sorted(regular_files(tree))
        names = cost_since()
        for path in paths:
            (tree / path).read_bytes()
        whole = cost_since()
    return {"chunk_size": chunk_size, "first_file": first, "all_names": names, "all_files": whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layers", type=Path, nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64 << 10, 256 << 10])
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    prepare_kernel()
    blobs = [Blob(layer.read_bytes()) for layer in arguments.layers]
    with tempfile.TemporaryDirectory() as name, DockerRegistry(Path(name) / "registry") as registry:
        client = RegistryClient(registry.host, Transport(proxy=""))
        push_image(client, REPOSITORY, blobs)
        client.close()
        for _ in range(arguments.rounds):
            for size in arguments.sizes:
                with tempfile.TemporaryDirectory(dir=name) as folder:
                    print(json.dumps(measure(registry, Path(folder), size)), flush=True)


if __name__ == "__main__":
    main()
