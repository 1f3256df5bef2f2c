"""JSON, or plain values, into msgspec structs: by any number of threads at once.

msgspec finds out about a struct when that is first decoded, and other threads see it half
known: two first decodes at once crash the interpreter (0.22 does so nearly every time).
So what it has to know of a type is made here, once, under a lock; nothing else of this
package decodes into structs.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_lock = threading.Lock()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def decode_json(text: bytes | str, kind: type[T]) -> T:
    """Raises msgspec.ValidationError when it does not fit kind, DecodeError for what is no JSON."""
    value: T = _decoder_of(kind).decode(text)
    return value


def convert_value(value: object, kind: type[T]) -> T:
    """Raises msgspec.ValidationError when it does not fit kind."""
    _decoder_of(kind)
    return msgspec.convert(value, kind)


def _decoder_of(kind: type[T]) -> msgspec.json.Decoder[T]:
    decoder = _decoders.get(kind)
    if decoder is None:
        with _lock:
            decoder = _decoders.setdefault(kind, msgspec.json.Decoder(kind))
    return decoder
