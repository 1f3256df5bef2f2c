"""NBD on the Python side: the handshake and the server that accepts connections.

What follows the handshake, the transmission phase, is C's (csrc/front/nbd.h).
"""
