"""The SCSI commands that only describe a disk, as pure functions of the CDB.

No I/O, no image, no kernel: a ``DiskDescription`` and a CDB go in, a ``Reply``
comes out (``dispatch.answer``).  Commands that touch data are C's
(csrc/front/scsi_decode.h).
"""
