#!/usr/bin/python3
"""A TLS client that delivers its ClientHello one byte per TCP segment; everything after it goes as usual.

The only client of the demo that is written for it: curl and openssl have no option for this. The TLS itself is
OpenSSL's. Usage: hello_in_pieces.py ADDRESS PORT NAME CA-FILE
"""

import socket
import ssl
import sys
import time


def main(address: str, port: int, name: str, authority: str) -> None:
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=authority)
    session = context.wrap_bio(received, to_send, server_hostname=name)
    with socket.create_connection((address, port), timeout=10) as connection:
        # Each byte leaves in a segment of its own: no waiting for earlier ones, and a pause to keep them apart.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def until_done(step):
            while True:
                try:
                    result = step()
                    connection.sendall(to_send.read())
                    return result
                except ssl.SSLWantReadError:
                    connection.sendall(to_send.read())
                    data = connection.recv(65536)
                    if not data:
                        raise SystemExit("the server closed the connection")
                    received.write(data)

        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            hello = to_send.read()
            for offset in range(len(hello)):
                connection.send(hello[offset : offset + 1])
                time.sleep(0.0005)
        until_done(session.do_handshake)
        request = f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
        until_done(lambda: session.write(request))
        answer = until_done(lambda: session.read(65536)).decode()
    body = answer.partition("\r\n\r\n")[2].strip()
    unit = dict(pair for field in session.getpeercert()["subject"] for pair in field)
    print(f"{body} ({len(hello)} segments, certificate of {unit['commonName']})")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
