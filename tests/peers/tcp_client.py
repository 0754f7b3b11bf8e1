"""Sends a text over TCP, then its end, and prints everything that comes back, or `reset`.

Usage: tcp_client.py ADDRESS PORT TEXT [PIECE [EXTRA]]: PIECE bytes per segment (default: all at once); EXTRA random
bytes (seeded) after the text, whose echo is compared and printed as `+EXTRA`.
"""

import random
import socket
import sys
import threading
import time

address, port, text = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
piece = int(sys.argv[4]) if len(sys.argv) > 4 else len(text) or 1
extra = random.Random(4).randbytes(int(sys.argv[5]) if len(sys.argv) > 5 else 0)


def send(connection):
    for offset in range(0, len(text), piece):
        connection.send(text[offset : offset + piece])
        if piece < len(text):
            time.sleep(0.001)  # keeps the segments apart
    connection.sendall(extra)
    connection.shutdown(socket.SHUT_WR)


received = b""
try:
    with socket.create_connection((address, port), timeout=15) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sender = threading.Thread(target=send, args=(connection,), daemon=True)
        sender.start()
        while data := connection.recv(65536):
            received += data
        sender.join(5)
except ConnectionError:
    print("reset")
    sys.exit(0)
if extra:
    head = received[: len(received) - len(extra)]
    if received != head + extra:
        sys.exit(f"the echo differs: {len(received)} bytes came back")
    print(f"{head.decode()}+{len(extra)}")
else:
    print(received.decode())
