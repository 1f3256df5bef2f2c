"""``make demo``: the main job on real input, told as a story.

Real files become an ext4 base layer; the stack is changed through a writable disk and
committed as a second layer; both are pushed to a registry as one image.  Its name is
opened with an empty cache, compared file by file with the source, changed, pushed and
compared once more.  ``doors`` decides where a disk can be had: on this machine's own
kernel, in the User-Mode Linux VM, or, without a kernel, through NBD alone.
"""
