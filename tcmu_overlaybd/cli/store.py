"""How commands that open images reach registries: a store of blobs of their own, as docker's files say.

``$TCMU_OVERLAYBD_CONFIG`` names a configuration of the service, for those whose registries
need one (a CA of their own, hosts spoken to in plain HTTP, another size of the cache).  What
is fetched is kept in the user's cache, root's too: the daemon's has the daemon for its owner.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tcmu_overlaybd.remote.settings import StoreSettings
    from tcmu_overlaybd.remote.store import BlobStore

CONFIG_VARIABLE = "TCMU_OVERLAYBD_CONFIG"


def open_store() -> BlobStore:
    """To be closed, as a context, after what was opened from it."""
    from tcmu_overlaybd.remote.cache_folder import user_folder
    from tcmu_overlaybd.remote.store import BlobStore

    return BlobStore(replace(chosen_settings(), folder=user_folder()))


def chosen_settings() -> StoreSettings:
    """Of the configuration that is named; its folder is the one that a daemon of this user has."""
    from tcmu_overlaybd.config.service_config import ServiceConfig, load_service_config
    from tcmu_overlaybd.remote.settings import settings_of

    path = os.environ.get(CONFIG_VARIABLE)
    return settings_of(load_service_config(Path(path)) if path else ServiceConfig())
