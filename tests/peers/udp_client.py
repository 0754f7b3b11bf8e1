"""Sends each text as a datagram from one socket and prints each answer. Usage: udp_client.py ADDRESS PORT TEXT...

A text of the form LENGTH*X stands for that many bytes that end in X; such an answer is checked and printed as a summary.
Without "don't fragment", so that the kernel cuts what is larger than its MTU.
"""

import socket
import sys

IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0  # <linux/in.h>

address, port = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
    endpoint.settimeout(3)
    if ":" not in address:
        endpoint.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    endpoint.connect((address, port))
    for text in sys.argv[3:]:
        length, star, last = text.partition("*")
        if not star:
            endpoint.send(text.encode())
            print(endpoint.recv(65536).decode())
            continue
        payload = bytes(n * 31 % 251 for n in range(int(length) - 1)) + last.encode()
        endpoint.send(payload)
        server, _, echoed = endpoint.recv(65536).partition(b":")
        print(f"{server.decode()}:{len(echoed)} {'same' if echoed == payload else 'different'}")
