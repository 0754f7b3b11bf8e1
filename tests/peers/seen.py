"""Who the server says its client is, compared with who the client is.

Usage: seen.py serve ADDRESS PORT: TCP and UDP. What the server sees as the client's address and port comes back ahead of every
byte that it gets: `ADDRESS PORT\\n`. A UDP answer is that line and the datagram.
seen.py ask ADDRESS PORT COUNT BYTES: COUNT connections and as many datagrams, one after the other, each from a port of its own;
BYTES both ways in each connection. Prints how often the server saw the client as it is, and all that was different.
"""

import asyncio
import socket
import sys


def line(peer):
    return f"{peer[0]} {peer[1]}\n".encode()


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, sender):
        self.transport.sendto(line(sender) + data, sender)


async def serve(address, port):
    async def stream(reader, writer):
        try:
            writer.write(line(writer.get_extra_info("peername")))
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
        except ConnectionError:
            pass

    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Datagrams, (address, port))
    await asyncio.start_server(stream, address, port, backlog=1024)
    print("ready")
    await asyncio.Event().wait()


async def connection(address, port, payload):
    reader, writer = await asyncio.open_connection(address, port)
    own = line(writer.get_extra_info("sockname"))

    async def say():
        writer.write(payload)
        await writer.drain()
        writer.write_eof()

    saying = asyncio.create_task(say())
    heard = await reader.read(-1)
    await saying
    writer.close()
    return heard, own + payload


def datagram(address, port, payload):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        endpoint.settimeout(3)
        endpoint.connect((address, port))
        endpoint.send(payload)
        return endpoint.recv(65536), line(endpoint.getsockname()) + payload


def ask(address, port, count, length):
    payload = bytes(n * 31 % 251 for n in range(length))
    pairs = {"tcp": [asyncio.run(connection(address, port, payload)) for _ in range(count)]}
    pairs["udp"] = [datagram(address, port, b"datagram") for _ in range(count)]
    for protocol, answers in pairs.items():
        for heard, expected in answers:
            if heard != expected:
                print(protocol, "different:", heard[:60], "for", expected[:60], len(heard), len(expected))
        print(protocol, sum(heard == expected for heard, expected in answers))


if sys.argv[1] == "serve":
    asyncio.run(serve(sys.argv[2], int(sys.argv[3])))
else:
    ask(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
