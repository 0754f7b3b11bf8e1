"""Ethernet, ARP, IPv4, TCP and UDP by hand, for peers that send what no kernel would send."""

import socket
import struct

MAC = bytes.fromhex("020000000177")
BROADCAST = b"\xff" * 6


def checksum(data):
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(destination, ethertype, payload, source=MAC):
    return destination + source + struct.pack("!H", ethertype) + payload


def ipv4(source, destination, protocol, payload):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0x4000, 64, protocol, 0, source, destination)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(source, destination, protocol, payload):
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), protocol, 64, source, destination) + payload


def transport(source, destination, protocol, segment, at):
    """The segment with the checksum of its pseudo header at offset `at` (RFC 9293, 3.1; RFC 8200, 8.1)."""
    pseudo = source + destination + struct.pack("!II", len(segment), protocol)
    return segment[:at] + struct.pack("!H", checksum(pseudo + segment)) + segment[at + 2 :]


def tcp(source, destination, ports, seq, ack, flags, payload=b"", options=b"", window=65535):
    offset = (20 + len(options)) // 4 << 4
    segment = struct.pack("!HHIIBBHHH", *ports, seq % 2**32, ack % 2**32, offset, flags, window, 0, 0) + options + payload
    return transport(source, destination, 6, segment, 16)


def udp(source, destination, ports, payload):
    return transport(source, destination, 17, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, 6)


def arp(operation, mac, address, target_mac, target):
    return struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, mac, address, target_mac, target)


def wire(device):
    """A socket that sends and receives whole frames."""
    endpoint = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    endpoint.bind((device, 0))
    endpoint.settimeout(3)
    return endpoint


def resolve(endpoint, own, address):
    """The MAC address of `address` (IPv4), asked for by `own`."""
    endpoint.send(ethernet(BROADCAST, 0x0806, arp(1, MAC, own, b"\0" * 6, address)))
    while True:
        frame = endpoint.recv(2048)
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2" and frame[28:32] == address:
            return frame[22:28]
