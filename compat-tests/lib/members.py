"""Waits until every broker at the ports given knows all of them, as Metadata (v1) tells clients."""

import socket
import struct
import sys
import time

DEADLINE = time.monotonic() + 60


def read(stream, layout):
    return struct.unpack(layout, stream.read(struct.calcsize(layout)))


def text(stream):
    length = max(read(stream, ">h")[0], 0)
    return stream.read(length)


def known(port):
    """Ports of the brokers that the one at a port tells of."""
    client_id = b"ready"
    request = struct.pack(f">hhih{len(client_id)}si", 3, 1, 1, len(client_id), client_id, 0)
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        stream = connection.makefile("rb")
        _size, _correlation, count = read(stream, ">iii")
        ports = set()
        for _ in range(count):
            read(stream, ">i")
            text(stream)
            ports.add(read(stream, ">i")[0])
            text(stream)
        return ports


wanted = {int(port) for port in sys.argv[1:]}
for port in wanted:
    while True:
        try:
            if known(port) >= wanted:
                break
        except (OSError, struct.error):
            pass
        if time.monotonic() > DEADLINE:
            sys.exit(f"the broker at port {port} does not know all of {sorted(wanted)}")
        time.sleep(0.05)
