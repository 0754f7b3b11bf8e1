"""A TCP client of its own, without the kernel's, that sends a ClientHello in an order no kernel would choose.

Usage: odd_tcp_client.py DEVICE ADDRESS PORT NAME reversed|duplicated|shuffled|overlapping
Prints what comes back before as many bytes as were sent, if the rest is exactly what was sent.
"""

import random
import socket
import ssl
import struct
import sys
import time

from frames import MAC, arp, ethernet, ipv4, resolve, tcp, wire

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
OWN = socket.inet_aton("192.0.2.77")


def client_hello(name):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()


def pieces(data, order):
    """(offset, bytes) of each segment, in the order in which they leave."""
    single = [(offset, data[offset : offset + 1]) for offset in range(len(data))]
    if order == "reversed":
        return single[::-1]
    if order == "duplicated":
        return [piece for piece in single for _ in range(2)]
    if order == "overlapping":
        # Four bytes each, at every second offset, the odd ones first.
        starts = list(range(2, len(data), 4)) + list(range(0, len(data), 4))
        return [(offset, data[offset : offset + 4]) for offset in starts]
    random.Random(1).shuffle(single)
    return single


class Connection:
    def __init__(self, device, address, port, own_port):
        self.endpoint = wire(device)
        self.endpoint.settimeout(1)
        self.peer = socket.inet_aton(address)
        self.ports = (own_port, port)
        self.seq, self.ack = 1000, 0
        self.mac = resolve(self.endpoint, OWN, self.peer)

    def send(self, flags, payload=b"", offset=0, options=b""):
        segment = tcp(OWN, self.peer, self.ports, self.seq + offset, self.ack, flags, payload, options)
        self.endpoint.send(ethernet(self.mac, 0x0800, ipv4(OWN, self.peer, 6, segment)))

    def receive(self):
        """(seq, ack, flags, payload) of the next segment for us; answers ARP in between."""
        while True:
            frame = self.endpoint.recv(65536)
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == OWN:
                answer = arp(2, MAC, OWN, frame[22:28], frame[28:32])
                self.endpoint.send(ethernet(frame[22:28], 0x0806, answer))
            elif frame[12:14] == b"\x08\x00" and frame[30:34] == OWN and frame[23] == 6:
                length = struct.unpack("!H", frame[16:18])[0]
                segment = frame[34 : 14 + length]
                seq, ack, offset, flags = struct.unpack("!4xIIBB", segment[:14])
                return seq, ack, flags, segment[offset >> 4 << 2 :]


def main(device, address, port, name, order):
    connection = Connection(device, address, port, random.SystemRandom().randrange(32768, 61000))
    connection.send(SYN, options=struct.pack("!BBH", 2, 4, 1460))
    seq, ack, flags, _ = connection.receive()
    assert flags == SYN | ACK and ack == 1001, (flags, ack)
    connection.seq, connection.ack = 1001, seq + 1
    connection.send(ACK)
    hello = client_hello(name)
    for number, (offset, data) in enumerate(pieces(hello, order)):
        connection.send(PSH | ACK, data, offset)
        if number % 32 == 31:
            time.sleep(0.005)  # the queue of the device is short, and this TCP repeats nothing
    received, taken, repeats = b"", 0, 0
    while len(received) < len(hello) or not received.endswith(hello):
        try:
            seq, ack, flags, data = connection.receive()
        except TimeoutError:
            # What the other end could not keep is sent again, in order, as TCP does it.
            repeats += 1
            assert repeats < 10, f"{taken} of {len(hello)} bytes were acknowledged, {len(received)} came back"
            connection.send(PSH | ACK, hello[taken : taken + 1000], taken)
            continue
        taken = max(taken, (ack - connection.seq) % 2**32)
        assert not flags & (RST | FIN), f"flags {flags:#x} after {len(received)} bytes"
        if data and seq == connection.ack % 2**32:
            received += data
            connection.ack += len(data)
            connection.send(ACK, offset=len(hello))
    connection.send(RST | ACK, offset=len(hello))
    print(received[: -len(hello)].decode())


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
