"""Frames that are wrong in every way that a seed can think of. Usage: hostile.py DEVICE VIP PORT COUNT SEED"""

import random
import socket
import struct
import sys
import time

from frames import BROADCAST, MAC, arp, ethernet, ipv4, ipv6, resolve, tcp, transport, udp, wire

device, vip, port = sys.argv[1], socket.inet_aton(sys.argv[2]), int(sys.argv[3])
count, seed = int(sys.argv[4]), int(sys.argv[5])
dice = random.Random(seed)
own = socket.inet_aton("192.0.2.78")
own6, vip6 = (socket.inet_pton(socket.AF_INET6, text) for text in ("2001:db8:1::78", "2001:db8:1::10"))


def good():
    """A frame of a random kind; most of them reach a service."""
    ports = (dice.randrange(65536), dice.choice([port, port, port, dice.randrange(65536)]))
    payload = dice.randbytes(dice.choice([0, 1, 20, 600, 1400]))
    flags = dice.choice([0x02, 0x10, 0x18, 0x11, 0x04, dice.randrange(256)])
    options = dice.choice([b"", bytes([2, 4, 5, 180]), bytes([3, 3, 7, 1, 4, 2, 0, 0]), dice.randbytes(8)])
    numbers = dice.randrange(2**32), dice.randrange(2**32)
    kind = dice.randrange(8)
    if kind == 0:
        operation, mac = dice.randrange(4), dice.randbytes(6)
        return ethernet(dice.choice([BROADCAST, weir]), 0x0806, arp(operation, mac, own, bytes(6), vip))
    if kind == 1:
        echo = struct.pack("!BBHI", dice.choice([8, 0, 3, 5, dice.randrange(256)]), 0, 0, 1) + payload
        return ethernet(weir, 0x0800, ipv4(own, vip, 1, transport(b"", b"", 0, echo, 2)))
    if kind == 2:
        message = struct.pack("!BBHI", dice.choice([128, 133, 134, 135, 136, 137]), 0, 0, 0) + vip6 + payload
        return ethernet(weir, 0x86DD, ipv6(own6, vip6, 58, transport(own6, vip6, 58, message, 2)))
    if kind == 3:
        return ethernet(weir, 0x0800, ipv4(own, vip, 17, udp(own, vip, ports, payload)))
    if kind == 4:
        return ethernet(weir, 0x86DD, ipv6(own6, vip6, 6, tcp(own6, vip6, ports, *numbers, flags, payload, options)))
    if kind == 5:
        chain = bytes([dice.choice([6, 17, 43, 60]), dice.randrange(4)]) + dice.randbytes(30)
        return ethernet(weir, 0x86DD, ipv6(own6, vip6, dice.choice([0, 43, 44, 60, 50, 59]), chain))
    return ethernet(weir, 0x0800, ipv4(own, vip, 6, tcp(own, vip, ports, *numbers, flags, payload, options)))


def bad(frame):
    """The frame with one thing wrong; sometimes it stays as it is."""
    kind = dice.randrange(6)
    if kind == 0:
        return frame[: dice.randint(14, len(frame))]
    if kind == 1:
        return frame + dice.randbytes(dice.randrange(30))
    if kind == 2:
        return frame[:12] + struct.pack("!HH", 0x8100, dice.randrange(65536)) + frame[12:]
    if kind in (3, 4):
        # The lengths, flags and checksums are all near the front.
        frame = bytearray(frame)
        for _ in range(dice.randint(1, 4)):
            frame[dice.randrange(12, min(len(frame), 74))] = dice.randrange(256)
        return bytes(frame)
    return frame


endpoint = wire(device)
weir = resolve(endpoint, own, vip)
sent = 0
for number in range(count):
    endpoint.send(bad(good())[:1514])
    sent += 1
    if number % 32 == 31:
        time.sleep(0.002)  # the queue of the device is short
print(sent)
