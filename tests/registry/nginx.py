"""nginx on free ports of 127.0.0.1, from a configuration of the test.

``tls_proxy``: HTTPS with a private CA in front of a registry.  ``redirecting``: manifests
from the registry, but blobs by redirect from another port, where what arrives is logged
with its Authorization, that must not be there.  ``serving``: the files of a folder.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.registry.certificates import Pair
from tests.registry.free_port import end, free_port, wait_for_port

_HEAD = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  log_format seen '$request_method $request_uri $status auth=$http_authorization';
  access_log {folder}/access.log seen;
  client_max_body_size 0; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_request_buffering off;
  proxy_set_header X-Forwarded-Proto $scheme;
"""


class Nginx:
    """``servers``: the server blocks of the configuration."""

    def __init__(self, folder: Path, port: int, servers: str) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
        if program is None:
            pytest.skip("nginx is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port
        self.host = f"127.0.0.1:{port}"
        config = folder / "nginx.conf"
        config.write_text(_HEAD.format(folder=folder) + servers + "}\n")
        self._process = subprocess.Popen(
            [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)],
            stderr=subprocess.DEVNULL,
        )
        wait_for_port(port, self._process)

    def log(self, name: str = "access.log") -> list[str]:
        return (self.folder / name).read_text().splitlines()

    def __enter__(self) -> Nginx:
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)


def tls_proxy(folder: Path, registry_host: str, pair: Pair, client_ca: Path | None = None) -> Nginx:
    """client_ca: whoever comes must show a certificate of it."""
    port = free_port()
    verify = f"ssl_client_certificate {client_ca}; ssl_verify_client on;" if client_ca else ""
    server = f"""
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key}; {verify}
    location / {{ proxy_pass http://{registry_host}; }}
  }}
"""
    return Nginx(folder, port, server)


def redirecting(folder: Path, registry_host: str, store: Path, *, absolute: bool = True) -> Nginx:
    """Blobs come from store, docker-registry's folder, at another port (absolute) or another path.

    What the other place was sent is in ``blobs.log``.
    """
    port, blob_port = free_port(), free_port()
    place = f"http://127.0.0.1:{blob_port}/store" if absolute else "/store"
    blobs = store / "docker/registry/v2/blobs/sha256"
    serve = f"""
    location ~ ^/store/(..)([0-9a-f]+)$ {{ alias {blobs}/$1/$1$2/data; access_log {folder}/blobs.log seen; }}
"""
    servers = f"""
  server {{
    listen 127.0.0.1:{port};
    location ~ ^/v2/.+/blobs/sha256:([0-9a-f]+)$ {{
      if ($request_method = GET) {{ return 307 {place}/$1; }}
      proxy_pass http://{registry_host};
    }}
    location /v2/ {{ proxy_pass http://{registry_host}; }}
    {"" if absolute else serve}
  }}
  server {{ listen 127.0.0.1:{blob_port}; {serve if absolute else ""} }}
"""
    return Nginx(folder, port, servers)


def serving(folder: Path, root: Path) -> Nginx:
    """root/NAME is at ``http://HOST/NAME``."""
    port = free_port()
    return Nginx(folder, port, f"server {{ listen 127.0.0.1:{port}; root {root}; }}\n")
