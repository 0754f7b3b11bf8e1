"""Connections that are held, against a limit of how many there may be.

Usage: limits.py serve ADDRESS PORT LIMIT
       limits.py fill ADDRESS PORT LIMIT ROUNDS SEED

A client says 8 bytes; the server answers `ok`, or `over` if that makes more connections than LIMIT, and holds the connection
until its client has finished. `fill` opens, in each round, so many connections that LIMIT are held, and a number of others at the
same time: exactly those must be refused. Then it finishes some. After the last round it says `full`, holds all until there is
a file `go`, and prints how many were refused.
"""

import os
import random
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

WORD = b"12345678"
MORE = 20


def serve(address, port, limit):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=256)
    lock, connections = threading.Lock(), 0

    def hold(connection):
        nonlocal connections
        with connection:
            connection.recv(len(WORD), socket.MSG_WAITALL)
            with lock:
                within = connections <= limit
            connection.sendall(b"ok" if within else b"over")
            while connection.recv(4096):
                pass
            # Before weir can know: what is opened from now on is not one too many.
            with lock:
                connections -= 1

    print("ready")
    while True:
        connection, _ = listener.accept()
        with lock:
            connections += 1
        threading.Thread(target=hold, args=(connection,), daemon=True).start()


def attempt(address, port):
    """A connection that a server holds, or None."""
    connection = socket.create_connection((address, port), timeout=30)
    try:
        connection.sendall(WORD)
        answer = connection.recv(16)
    except (ConnectionResetError, BrokenPipeError):
        answer = b""
    if answer == b"ok":
        return connection
    connection.close()
    if answer:
        sys.exit(f"the server says {answer}")
    return None


def finish(connection):
    with connection:
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass


def fill(address, port, limit, rounds, seed):
    dice, held, refused = random.Random(seed), [], 0
    with ThreadPoolExecutor(32) as pool:
        for number in range(rounds):
            room = limit - len(held)
            more = dice.randint(1, MORE)
            answers = list(pool.map(lambda _: attempt(address, port), range(room + more)))
            got = [connection for connection in answers if connection]
            if len(got) != room:
                sys.exit(f"round {number}: {len(got)} of {room + more} were taken while there was room for {room}")
            held += got
            refused += more
            if number + 1 < rounds:
                dice.shuffle(held)
                going = [held.pop() for _ in range(dice.randint(1, limit))]
                list(pool.map(finish, going))
        print("full")
        while not os.path.exists("go"):
            time.sleep(0.05)
        list(pool.map(finish, held))
    print(refused)


if __name__ == "__main__":
    kind, address, *numbers = sys.argv[1:]
    {"serve": serve, "fill": fill}[kind](address, *map(int, numbers))
