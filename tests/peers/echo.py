"""Echo servers, UDP and TCP: what comes back begins with the server's name, so that a client sees who answered.

Usage: echo.py udp|tcp NAME ADDRESS PORT. UDP: each datagram comes back as NAME:datagram. TCP: NAME:, then every byte.
"""

import asyncio
import sys


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, name):
        self.name = name

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, sender):
        self.transport.sendto(self.name + b":" + data, sender)


async def main(kind, name, address, port):
    name = name.encode()

    async def stream(reader, writer):
        try:
            first = True
            while data := await reader.read(65536):
                writer.write(name + b":" + data if first else data)
                first = False
                await writer.drain()
            writer.close()
        except ConnectionError:
            pass

    loop = asyncio.get_running_loop()
    if kind == "udp":
        await loop.create_datagram_endpoint(lambda: Datagrams(name), (address, port))
    else:
        await asyncio.start_server(stream, address, port, backlog=1024)
    print("ready")
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
