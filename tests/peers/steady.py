"""Keeps one TCP connection to an echo server open: sends numbers one after the other and compares what comes back.

Usage: steady.py ADDRESS PORT COUNT. Prints `ready` when the first number has come back, and how many did at the end.
"""

import socket
import sys
import time

address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with socket.create_connection((address, port), timeout=15) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = connection.makefile("r")
    name = ""
    for number in range(count):
        connection.sendall(f"{number}\n".encode())
        answer = reader.readline().rstrip("\n")
        if number == 0:
            name, answer = answer.split(":")
            print("ready", flush=True)
        if answer != str(number):
            sys.exit(f"{answer!r} came back for {number}")
        time.sleep(0.02)
print(f"{count} from {name}")
