"""The kernel side: what we ask of LIO through configfs, and what we look up in /sys and /proc.

Nothing outside this package touches configfs.  What may sleep in the kernel is done
by a program of its own (``helper``); the rest only reads.
"""
