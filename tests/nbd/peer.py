"""A scripted libnbd client, for /usr/bin/python3 (the binding is not in the venv).

Reads one JSON list a line, ``[connection, operation, arguments...]``, runs it and
answers with one JSON value a line: what it returned, or ``{"errno": n, "error": text}``.
Connections are opened when first used.  Data is named by a seed, see ``data_of``, or
comes back as its SHA-256.
"""

import hashlib
import json
import random
import sys
import time

FLAGS = {"fua": 1 << 0, "no_hole": 1 << 1, "df": 1 << 2, "fast_zero": 1 << 4}


def data_of(seed, length):
    """The bytes that a seed stands for; 0 is zeros."""
    return random.Random(seed).randbytes(length) if seed else bytes(length)


def flags_of(names):
    return sum(FLAGS[name] for name in names)


class Peer:
    def __init__(self, uri):
        import nbd

        self.nbd = nbd
        self.uri = uri
        self.connections = {}

    def connection(self, number):
        if number not in self.connections:
            handle = self.nbd.NBD()
            handle.add_meta_context(self.nbd.CONTEXT_BASE_ALLOCATION)
            handle.set_strict_mode(0)  # the server is to say no, not the library
            handle.connect_uri(self.uri)
            self.connections[number] = handle
        return self.connections[number]

    def run(self, number, operation, *arguments):
        return getattr(self, operation)(self.connection(number), *arguments)

    def facts(self, h):
        names = ["is_read_only", "can_flush", "can_fua", "can_trim", "can_zero", "can_fast_zero", "can_df"]
        names += ["can_multi_conn", "get_size", "get_structured_replies_negotiated"]
        return {name: getattr(h, name)() for name in names}

    def write(self, h, offset, length, seed, *flags):
        h.pwrite(data_of(seed, length), offset, flags_of(flags))

    def write_many(self, h, number, length):
        """Write i goes to the i-th place of the first MiB, round and round, with i + 1 as its seed."""
        for i in range(number):
            h.pwrite(data_of(i + 1, length), i * length % (1 << 20))

    def read(self, h, offset, length, *flags):
        return hashlib.sha256(h.pread(length, offset, flags_of(flags))).hexdigest()

    def read_hex(self, h, offset, length):
        return h.pread(length, offset).hex()

    def zero(self, h, offset, length, *flags):
        h.zero(length, offset, flags_of(flags))

    def trim(self, h, offset, length, *flags):
        h.trim(length, offset, flags_of(flags))

    def flush(self, h):
        h.flush()

    def cache(self, h, offset, length):
        h.cache(length, offset)

    def extents(self, h, offset, length):
        found = []
        h.block_status(length, offset, lambda _context, _offset, entries, _error: found.extend(entries))
        return found

    def chunks(self, h, offset, length):
        """[offset, length, type] of every chunk of a structured read; 1 data, 2 hole."""
        found = []
        h.pread_structured(length, offset, lambda b, o, status, _error: found.append([o, len(b), status]))
        return found

    def reads_per_second(self, h, seconds):
        """4 KiB reads, one after the other, at random places of the first MiB."""
        offsets = [random.randrange(256) * 4096 for _ in range(1024)]
        number, started = 0, time.monotonic()
        while time.monotonic() - started < seconds:
            for offset in offsets[:64]:
                h.pread(4096, offset)
            number += 64
        return number / (time.monotonic() - started)

    def seconds_to_connect(self, h):
        """How long another handshake takes, which is Python's part of the server."""
        started = time.monotonic()
        other = self.nbd.NBD()
        other.connect_uri(self.uri)
        other.shutdown()
        return time.monotonic() - started

    def close(self, h):
        h.shutdown()


def main():
    peer = Peer(sys.argv[1])
    for line in sys.stdin:
        try:
            answer = peer.run(*json.loads(line))
        except peer.nbd.Error as error:
            answer = {"errno": error.errnum or 0, "error": error.string}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
