"""What lies in layer files, as frozen dataclasses: bytes in, values out, and back.

Nothing here does I/O.  Every parser takes bytes from outside: whatever they are,
it returns a value or raises ``FormatError`` (not such a thing at all) or
``CorruptError`` (it is one, and breaks a rule), with the field, its value and the
limit in the sentence.  Bulk arrays and blocks are read in C.
"""
