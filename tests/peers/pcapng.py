"""Reads a pcapng file by the format's description alone and prints a JSON object for each packet.

Usage: pcapng.py FILE. An object has `interface` (its name), `way` (in or out), `nanos`, `length`, `comment`, and of IPv4 over
Ethernet `source`, `destination`, `protocol`, and of TCP and UDP `sport`, `dport` and `payload` (in hexadecimal).
"""

import json
import struct
import sys


def options(data):
    found = {}
    while data:
        code, length = struct.unpack_from("<HH", data)
        if code == 0:
            break
        found[code] = data[4 : 4 + length]
        data = data[4 + (length + 3) // 4 * 4 :]
    return found


def packet(data):
    if data[12:14] != b"\x08\x00":
        return {}
    ip = data[14 : 14 + struct.unpack_from("!H", data, 16)[0]]
    head = (ip[0] & 15) * 4
    said = {
        "source": ".".join(map(str, ip[12:16])),
        "destination": ".".join(map(str, ip[16:20])),
        "protocol": ip[9],
    }
    if ip[9] in (6, 17):
        rest = ip[head:]
        said["sport"], said["dport"] = struct.unpack_from("!HH", rest)
        said["payload"] = rest[(rest[12] >> 4) * 4 if ip[9] == 6 else 8 :].hex()
    return said


data = open(sys.argv[1], "rb").read()
interfaces = []
while data:
    kind, length = struct.unpack_from("<II", data)
    assert struct.unpack_from("<I", data, length - 4)[0] == length
    body, data = data[8 : length - 4], data[length:]
    if kind == 0x0A0D0D0A:
        assert struct.unpack_from("<IHH", body) == (0x1A2B3C4D, 1, 0)
    elif kind == 1:
        said = options(body[8:])
        assert struct.unpack_from("<H", body)[0] == 1 and said[9] == b"\x09"
        interfaces.append(said[2].decode())
    elif kind == 6:
        number, high, low, captured, original = struct.unpack_from("<IIIII", body)
        said = options(body[20 + (captured + 3) // 4 * 4 :])
        print(
            json.dumps(
                {
                    "interface": interfaces[number],
                    "way": {1: "in", 2: "out"}[struct.unpack("<I", said[2])[0] & 3],
                    "nanos": high << 32 | low,
                    "length": original,
                    "comment": said.get(1, b"").decode(),
                    **packet(body[20 : 20 + captured]),
                }
            )
        )
    else:
        sys.exit(f"a block of type {kind}")
