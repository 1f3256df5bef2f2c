"""The C data plane as Python classes: the only package that sees ``ffi`` and ``lib``.

A wrapper checks, calls, translates the status and returns a Python value; it
decides nothing.  Handles close themselves as context managers.
"""
