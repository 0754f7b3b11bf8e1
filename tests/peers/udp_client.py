"""Sends each text as a datagram from one socket and prints each answer. Usage: udp_client.py ADDRESS PORT TEXT..."""

import socket
import sys

address, port = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
    endpoint.settimeout(3)
    endpoint.connect((address, port))
    for text in sys.argv[3:]:
        endpoint.send(text.encode())
        print(endpoint.recv(65536).decode())
