"""A server behind PROXY headers: says who the header names, then echoes what follows it.

Usage: proxied.py v1|v2 ADDRESS PORT. The header is read here after haproxy's proxy-protocol.txt, by no code of weir's. A
connection gets `SOURCE|PORT|DESTINATION|PORT|`, then every byte that follows the header. Printed: `unknown` for a header that
names nobody, `wrong` and the bytes for what is no header of that version.
"""

import asyncio
import socket
import struct
import sys

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


class Wrong(Exception):
    pass


async def read_v1(reader):
    line = await reader.readuntil(b"\r\n")
    if len(line) > 107:
        raise Wrong(line)
    words = line[:-2].decode("ascii").split(" ")
    if words[:2] == ["PROXY", "UNKNOWN"]:
        return None
    if len(words) != 6 or words[0] != "PROXY" or words[1] not in ("TCP4", "TCP6"):
        raise Wrong(line)
    family = socket.AF_INET if words[1] == "TCP4" else socket.AF_INET6
    for address in words[2:4]:
        socket.inet_pton(family, address)
    if any(str(int(port)) != port or int(port) > 65535 for port in words[4:]):
        raise Wrong(line)
    return words[2], words[4], words[3], words[5]


async def read_v2(reader):
    fixed = await reader.readexactly(16)
    command, family, length = struct.unpack(">BBH", fixed[12:])
    block = await reader.readexactly(length)
    if fixed[:12] != SIGNATURE or command not in (0x20, 0x21):
        raise Wrong(fixed)
    if command == 0x20:
        return None
    if family not in (0x11, 0x21):
        raise Wrong(fixed)
    kind, size = (socket.AF_INET, 4) if family == 0x11 else (socket.AF_INET6, 16)
    source, destination, *ports = struct.unpack(f">{size}s{size}sHH", block[: 2 * size + 4])
    return (socket.inet_ntop(kind, source), str(ports[0]), socket.inet_ntop(kind, destination), str(ports[1]))


async def serve(reader, writer, read):
    try:
        named = await read(reader)
        if named is None:
            print("unknown")
        else:
            writer.write("|".join(named).encode() + b"|")
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (Wrong, ValueError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        if not isinstance(error, ConnectionError):
            print("wrong", repr(error))
    writer.close()


async def main(version, address, port):
    read = {"v1": read_v1, "v2": read_v2}[version]
    await asyncio.start_server(lambda reader, writer: serve(reader, writer, read), address, port, backlog=1024)
    print("ready")
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
