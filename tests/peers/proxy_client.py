"""A proxy in front of weir: sends a PROXY header, then a text, and prints everything that comes back, or `reset`.

Usage: proxy_client.py ADDRESS PORT v1|v2|v2-tlv|local|none SOURCE PORT DESTINATION PORT TEXT [PIECE [EXTRA]]. The header is
written here after haproxy's proxy-protocol.txt. PIECE and EXTRA are those of tcp_client.py; PIECE cuts the header, too.
"""

import random
import socket
import struct
import sys
import threading
import time

address, port, version, source, source_port, destination, destination_port, text = sys.argv[1:9]
extra = random.Random(4).randbytes(int(sys.argv[10]) if len(sys.argv) > 10 else 0)
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def header():
    four = ":" not in source
    if version == "none":
        return b""
    if version == "local":
        return SIGNATURE + b"\x20\x00\x00\x00"
    if version == "v1":
        line = f"PROXY {'TCP4' if four else 'TCP6'} {source} {destination} {source_port} {destination_port}\r\n"
        return line.encode()
    kind = socket.AF_INET if four else socket.AF_INET6
    ports = struct.pack(">HH", int(source_port), int(destination_port))
    block = socket.inet_pton(kind, source) + socket.inet_pton(kind, destination) + ports
    if version == "v2-tlv":
        block += struct.pack(">BH", 0x04, 900) + bytes(900)  # PP2_TYPE_NOOP
    return SIGNATURE + bytes([0x21, 0x11 if four else 0x21]) + struct.pack(">H", len(block)) + block


whole = header() + text.encode()
piece = int(sys.argv[9]) if len(sys.argv) > 9 else len(whole)


def send(connection):
    try:
        for offset in range(0, len(whole), piece):
            connection.send(whole[offset : offset + piece])
            if piece < len(whole):
                time.sleep(0.001)  # keeps the segments apart
        connection.sendall(extra)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the reader sees it as well


received = b""
try:
    with socket.create_connection((address, int(port)), timeout=15) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sender = threading.Thread(target=send, args=(connection,), daemon=True)
        sender.start()
        while data := connection.recv(65536):
            received += data
        sender.join(5)
        own = connection.getsockname()[1]
except ConnectionError:
    print("reset")
    sys.exit(0)
head = received[: len(received) - len(extra)]
if received != head + extra:
    sys.exit(f"the echo differs: {len(received)} bytes came back")
print(f"{own}|{head.decode()}" + (f"+{len(extra)}" if extra else ""))
