"""``make demo``: the main job on real input, told as a story.

Real files become an ext4 base layer; the stack is changed through a writable
disk, committed as a second layer, attached again and compared file by file, and
once more.  ``doors`` decides where a disk can be had: on this machine's own
kernel, in the User-Mode Linux VM, or, without a kernel, through NBD alone.
"""
