"""How long the tests here go on: ``make soak`` (OBD_SOAK=1) runs the same ones, longer."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

IS_SOAK = os.environ.get("OBD_SOAK") == "1"


def usual_or_soak(usual: T, soak: T) -> T:
    return soak if IS_SOAK else usual
