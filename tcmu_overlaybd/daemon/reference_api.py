"""The reference's HTTP API of live snapshots, with its answers (spec/config.md section 5).

    /snapshot?dev_id=ID&config=FILE      by any method

FILE is a configuration that the caller has written, its upper made by ``overlaybd-create``.
The device's upper is sealed, writes go to the new one, and FILE takes the place of the
device's configuration.

The reference listens at a TCP port, where whoever can reach it may snapshot any disk.  Ours
answers on the control socket, whose owner and mode say who may, and only when
``serviceConfig.enable`` asks for it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from tcmu_overlaybd.errors import MissingError, OverlayBDError

logger = logging.getLogger(__name__)

PREFIX = "/snapshot"
INDENT = 8  # of the reference's JSON


class Answer(NamedTuple):
    status: HTTPStatus
    body: bytes


class ReferenceApi:
    def __init__(self, restack: Callable[[str, Path], None]) -> None:
        """restack(dev_id, configuration) raises MissingError for an id that no device has."""
        self._restack = restack

    def __call__(self, target: str) -> Answer:
        """target: path and query of the request."""
        query = parse_qs(urlsplit(target).query)
        dev_id, config = (query.get(key, [""])[-1] for key in ("dev_id", "config"))
        if not dev_id or not config:
            return _answer(HTTPStatus.BAD_REQUEST, "Missing dev_id or config in snapshot request")
        try:
            self._restack(dev_id, Path(config))
        except MissingError:
            return _answer(HTTPStatus.NOT_FOUND, "Image file not found")
        except OverlayBDError as error:
            logger.error("snapshot of %s by %s: %s", dev_id, config, error)  # noqa: TRY400 the sentence is all
        except Exception:
            logger.exception("snapshot of %s by %s failed", dev_id, config)
        else:
            return _answer(HTTPStatus.OK, "Snapshot created successfully")
        return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "Failed to create snapshot`")  # its backtick


def _answer(status: HTTPStatus, message: str) -> Answer:
    value = {"success": status == HTTPStatus.OK, "message": message}
    return Answer(status, json.dumps(value, indent=INDENT).encode())
