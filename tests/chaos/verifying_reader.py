"""Reads an NBD export at random, many reads at once, and compares every byte with a file.

For /usr/bin/python3 (libnbd's binding is not in the venv):

    verifying_reader.py URI RAW SEED            until stdin is closed
    verifying_reader.py URI RAW SEED --once     the whole export from its beginning, once

A server that goes away is connected to again, but with ``--once`` that is the end.  The
last thing said is one line of JSON, see Report.
"""

import collections
import contextlib
import errno
import json
import os
import random
import select
import sys
import time

import nbd

IN_FLIGHT = 8
SECTOR = 512
LARGEST = 512  # sectors
HANG_S = 120  # longer than any deadline that a server has for a read
AWAY = (errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.EPIPE)


class Report:
    """What happened; ``errors`` by errno, ``lost`` were under way when the server went.

    ``is_whole``: every byte of the export was read once.
    """

    def __init__(self):
        self.reads = self.bytes = self.mismatches = self.hangs = self.lost = self.connections = 0
        self.errors = collections.Counter()
        self.slowest_s = 0.0
        self.is_whole = False
        self.first_mismatch = ""

    def as_json(self):
        return json.dumps({**vars(self), "errors": {errno.errorcode[n]: k for n, k in self.errors.items()}})


class Read:
    def __init__(self, offset, length):
        self.offset = offset
        self.buffer = nbd.Buffer(length)
        self.length = length
        self.since = time.monotonic()


class Reader:
    def __init__(self, uri, raw, seed, once):
        self.uri = uri
        self.raw = os.open(raw, os.O_RDONLY)
        self.size = os.fstat(self.raw).st_size
        self.rng = random.Random(seed)
        self.once = once
        self.next = 0
        self.has_left = False
        self.report = Report()
        self.handle = None
        self.reads = {}

    def run(self):
        while not self.is_done():
            if self.handle is None:
                self.connect()
                continue
            while len(self.reads) < IN_FLIGHT and (read := self.wanted()) is not None:
                self.reads[self.handle.aio_pread(read.buffer, read.offset)] = read
            if self.reads:
                self.poll()

    def is_done(self):
        if self.report.hangs:
            return True
        if self.once:
            self.report.is_whole = self.report.bytes == self.size
            return self.has_left or (self.next >= self.size and not self.reads)
        return bool(select.select([sys.stdin], [], [], 0)[0])

    def connect(self):
        handle = nbd.NBD()
        try:
            handle.connect_uri(self.uri)
        except nbd.Error:
            self.has_left = True
            time.sleep(0.05)
            return
        self.handle = handle
        self.report.connections += 1

    def wanted(self):
        """The next read; None when there is none left."""
        if not self.once:
            first = self.rng.randrange(self.size // SECTOR)
            offset, length = first * SECTOR, self.rng.randrange(1, LARGEST + 1) * SECTOR
        else:
            offset, length = self.next, LARGEST * SECTOR
            if offset >= self.size:
                return None
            self.next += length
        return Read(offset, min(length, self.size - offset))

    def poll(self):
        with contextlib.suppress(nbd.Error):  # each read says it itself
            self.handle.poll(1000)
        for cookie in list(self.reads):
            try:
                if self.handle.aio_command_completed(cookie):
                    self.verify(self.reads.pop(cookie))
            except nbd.Error as error:
                self.fail(self.reads.pop(cookie), error.errnum or errno.ENOTCONN)
        if self.handle.aio_is_dead() or self.handle.aio_is_closed():
            for read in self.reads.values():
                self.fail(read, errno.ENOTCONN)
            self.reads, self.handle, self.has_left = {}, None, True
        self.report.hangs += sum(time.monotonic() - read.since > HANG_S for read in self.reads.values())

    def fail(self, read, number):
        if number in AWAY:
            self.report.lost += 1
        else:
            self.report.errors[number] += 1

    def verify(self, read):
        self.report.reads += 1
        self.report.bytes += read.length
        self.report.slowest_s = max(self.report.slowest_s, round(time.monotonic() - read.since, 3))
        got = bytes(read.buffer.to_bytearray())
        if got != os.pread(self.raw, read.length, read.offset):
            self.report.mismatches += 1
            self.report.first_mismatch = self.report.first_mismatch or f"{read.length} at {read.offset}"


def main():
    uri, raw, seed = sys.argv[1:4]
    reader = Reader(uri, raw, int(seed), "--once" in sys.argv)
    reader.run()
    print(reader.report.as_json(), flush=True)
    os._exit(0)  # a connection that hangs must not hold us up


main()
