"""The daemon: serves the kernel's devices, and whoever asks over the control socket.

``service`` starts and stops it; ``table`` knows the devices; ``control`` and ``client``
are the two ends of the socket, ``messages`` what goes over it; ``state`` is what survives.
"""
