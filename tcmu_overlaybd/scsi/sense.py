"""Sense data: why a command ended in CHECK CONDITION (SPC-4, 4.5)."""

from __future__ import annotations

from typing import NamedTuple

KEY_NO_SENSE = 0x0
KEY_NOT_READY = 0x2
KEY_ILLEGAL_REQUEST = 0x5


class Sense(NamedTuple):
    """Sense key, additional sense code and its qualifier."""

    key: int
    asc: int
    ascq: int

    @property
    def code(self) -> int:
        """The three as one number, as csrc/obd.h passes them."""
        return self.key << 16 | self.asc << 8 | self.ascq

    def fixed(self) -> bytes:
        """Fixed format, current (response code 70h): 18 bytes."""
        return bytes([0x70, 0, self.key, 0, 0, 0, 0, 10, 0, 0, 0, 0, self.asc, self.ascq, 0, 0, 0, 0])

    def descriptor(self) -> bytes:
        """Descriptor format, current (response code 72h), without descriptors: 8 bytes."""
        return bytes([0x72, self.key, self.asc, self.ascq, 0, 0, 0, 0])


NO_SENSE = Sense(KEY_NO_SENSE, 0, 0)
# Of the "not ready" answers this is one that Linux neither retries nor polls
# (vm/README.md, section 7): the disk comes with size 0 and is rescanned later.
NOT_READY = Sense(KEY_NOT_READY, 0x04, 0x03)
PARAMETER_LIST_LENGTH_ERROR = Sense(KEY_ILLEGAL_REQUEST, 0x1A, 0)
INVALID_OPCODE = Sense(KEY_ILLEGAL_REQUEST, 0x20, 0)
INVALID_FIELD_IN_CDB = Sense(KEY_ILLEGAL_REQUEST, 0x24, 0)
INVALID_FIELD_IN_PARAMETER_LIST = Sense(KEY_ILLEGAL_REQUEST, 0x26, 0)
SAVING_NOT_SUPPORTED = Sense(KEY_ILLEGAL_REQUEST, 0x39, 0)
