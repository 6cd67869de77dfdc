"""Waits until every broker at the ports given knows all of them, as Metadata (v1) tells clients.

With --properties FILE, a Java client's, it comes in by TLS and as the user that the file names.
"""

import re
import socket
import ssl
import struct
import sys
import time

DEADLINE = time.monotonic() + 60
METADATA, SASL_HANDSHAKE, SASL_AUTHENTICATE = 3, 17, 36


def read(stream, layout):
    return struct.unpack(layout, stream.read(struct.calcsize(layout)))


def text(stream):
    length = max(read(stream, ">h")[0], 0)
    return stream.read(length)


def ask(connection, stream, key, version, body):
    """Sends a request, and leaves the stream behind the header of its answer."""
    client_id = b"ready"
    request = struct.pack(f">hhih{len(client_id)}s", key, version, 1, len(client_id), client_id) + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    read(stream, ">ii")


def log_in(connection, stream, user, password):
    mechanism, token = b"PLAIN", f"\0{user}\0{password}".encode()
    ask(connection, stream, SASL_HANDSHAKE, 1, struct.pack(f">h{len(mechanism)}s", len(mechanism), mechanism))
    code, count = read(stream, ">hi")
    for _ in range(count):
        text(stream)
    if code != 0:
        raise PermissionError("PLAIN is not offered")
    ask(connection, stream, SASL_AUTHENTICATE, 0, struct.pack(f">i{len(token)}s", len(token), token))
    code, why = read(stream, ">h")[0], text(stream)
    stream.read(max(read(stream, ">i")[0], 0))
    if code != 0:
        raise PermissionError(f"{user} is not let in: {why.decode()}")


def known(port, access):
    """Ports of the brokers that the one at a port tells of."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        connection = access["tls"].wrap_socket(plain, server_hostname="127.0.0.1") if access else plain
        stream = connection.makefile("rb")
        if access:
            log_in(connection, stream, access["user"], access["password"])
        ask(connection, stream, METADATA, 1, struct.pack(">i", 0))
        (count,) = read(stream, ">i")
        ports = set()
        for _ in range(count):
            read(stream, ">i")
            text(stream)
            ports.add(read(stream, ">i")[0])
            text(stream)
        return ports


def access_of(file):
    """How a Java client with these properties comes in."""
    with open(file, encoding="utf-8") as lines:
        properties = dict(line.strip().split("=", 1) for line in lines if "=" in line)
    user, password = re.search('username="(.*?)" password="(.*?)"', properties["sasl.jaas.config"]).groups()
    return {"tls": ssl.create_default_context(cafile=properties["ssl.truststore.location"]), "user": user, "password": password}


arguments = sys.argv[1:]
access = access_of(arguments[1]) if arguments[0] == "--properties" else None
wanted = {int(port) for port in arguments[2 if access else 0 :]}
for port in wanted:
    why = ""
    while True:
        try:
            if known(port, access) >= wanted:
                break
        except (OSError, struct.error) as error:
            why = f": {error}"
        if time.monotonic() > DEADLINE:
            sys.exit(f"the broker at port {port} does not know all of {sorted(wanted)}{why}")
        time.sleep(0.05)
