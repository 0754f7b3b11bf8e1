"""Carries bytes one way over TCP; both ends hash them (SHA-256), and the client compares.

Usage: transfer.py serve ADDRESS PORT
       transfer.py up|down ADDRESS PORT BYTES SEED TIMES

A connection begins with a head of HEAD bytes from the client: what is wanted, then bytes of the seed. `up`: the client
sends BYTES more, then its end, and the server answers with its hash of all it received. `down`: the server sends BYTES,
then its hash of the head and of them, then its end. Of TIMES connections, 32 at most are open at once.
"""

import hashlib
import random
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

HEAD = 4096
BLOCK = 1 << 16


def blocks(count, seed):
    dice = random.Random(seed)
    for offset in range(0, count, BLOCK):
        yield dice.randbytes(min(BLOCK, count - offset))


def send(connection, count, seed, digest):
    for block in blocks(count, seed):
        connection.sendall(block)
        digest.update(block)


def receive(connection, count, digest):
    """Receives `count` bytes, or all up to the end (None), and returns how many came."""
    received = 0
    while received != count:
        data = connection.recv(BLOCK if count is None else min(BLOCK, count - received))
        if not data:
            break
        digest.update(data)
        received += len(data)
    return received


def serve(connection):
    with connection:
        head = b""
        while len(head) < HEAD and (data := connection.recv(HEAD - len(head))):
            head += data
        digest = hashlib.sha256(head)
        kind, count, seed = head[: head.index(b"\n")].split()
        if kind == b"up":
            receive(connection, None, digest)
        else:
            send(connection, int(count), int(seed) + 1, digest)
        connection.sendall(digest.hexdigest().encode())


def transfer(kind, address, port, count, seed):
    """Fails unless both ends say the same."""
    line = f"{kind} {count} {seed}\n".encode()
    head = line + random.Random(seed).randbytes(HEAD - len(line))
    digest = hashlib.sha256(head)
    with socket.create_connection((address, port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for offset in range(0, HEAD, 512):
            connection.sendall(head[offset : offset + 512])
        if kind == "up":
            send(connection, count, seed + 1, digest)
            connection.shutdown(socket.SHUT_WR)
        else:
            received = receive(connection, count, digest)
            if received != count:
                sys.exit(f"the stream ended after {received} of {count} bytes")
        answer = b""
        while data := connection.recv(BLOCK):
            answer += data
    if answer != digest.hexdigest().encode():
        sys.exit(f"{kind}: the server has {answer[:80]}, the client {digest.hexdigest()}")


kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "serve":
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=128) as listener:
        print("ready")
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
count, seed, times = (int(text) for text in sys.argv[4:7])
with ThreadPoolExecutor(32) as pool:
    for done in [pool.submit(transfer, kind, address, port, count, seed + 2 * n) for n in range(times)]:
        done.result()
