"""The folder of an upper: ``data``, ``index`` and the ``config.v1.json`` that names its image.

``--upper DIR`` makes it if absent.  It is kept on detach, so that the same disk can be
attached again, and ``image commit DIR/config.v1.json`` makes a layer of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tcmu_overlaybd.config.image_config import ImageConfig, Lower, Upper, load_image_config, save_image_config

CONFIG_NAME = "config.v1.json"


@dataclass(frozen=True)
class UpperDir:
    path: Path

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def config(self) -> Path:
        return self.path / CONFIG_NAME

    def exists(self) -> bool:
        """Whether an upper is there; the configuration is written last."""
        return self.config.exists()

    def holds(self, lower: Lower) -> bool:
        """Whether it lies in this folder: an upper that a snapshot has sealed."""
        return bool(lower.file) and Path(lower.file).resolve().parent == self.path.resolve()

    def is_free(self) -> bool:
        """Whether nothing of an upper is there, so that one can be made, and removed again."""
        return not any(path.exists() for path in (self.config, self.data, self.index))

    def load(self) -> ImageConfig:
        return load_image_config(self.config)

    def save(self, base: ImageConfig) -> ImageConfig:
        """Writes and returns the image made of base's lowers and this upper."""
        config = ImageConfig(
            repo_blob_url=base.repo_blob_url,
            lowers=tuple(base.layers),
            upper=Upper(index=str(self.index.absolute()), data=str(self.data.absolute())),
            download=base.download,
        )
        save_image_config(self.config, config)
        return config


def same_lowers(one: tuple[Lower, ...], other: tuple[Lower, ...]) -> bool:
    """Whether both name the same layers in the same order, by file or else by digest."""
    return [_identity(lower) for lower in one] == [_identity(lower) for lower in other]


def _identity(lower: Lower) -> str:
    return str(Path(lower.file).resolve()) if lower.file else lower.digest or str(Path(lower.dir).resolve())
