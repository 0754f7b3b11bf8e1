"""A bad wire: what a port of weir sends comes out of a tap device, and the other way round, less what is lost.

Usage: lossy.py PORT FAR SECONDS SEED LOSS LATE REPEAT DELAY JITTER

PORT is the kernel's end of weir's port; FAR is made here, for whoever is to be at the far end of the wire. LOSS, LATE
and REPEAT are chances per mille and frame, DELAY and JITTER are microseconds. A frame takes DELAY; one that is late
takes up to JITTER more and is overtaken meanwhile; one that is repeated comes again, up to JITTER later.

It says `ready`; at SIGTERM it prints what it did, a line of JSON for each direction. After SECONDS it ends by itself.
The seed makes the dice the same in each run, not the times at which the frames come.
"""

import collections
import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time

# <linux/if_packet.h>, <linux/if_tun.h>
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000
# Of each direction: as many as a short queue of a router holds, so the memory is bounded.
ROOM = 4096
BURST = 64


def port(name):
    """Sends and receives whole frames at the kernel's end of weir's port, where nothing but this program is."""
    with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as setting:
        setting.write("1")
    endpoint = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    endpoint.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
    endpoint.setblocking(False)
    endpoint.bind((name, 0))
    return endpoint


def tap(name):
    """A tap device: unlike a veth, it neither leaves checksums undone nor joins segments to large ones."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return device


class Direction:
    """Frames of one direction on their way."""

    def __init__(self, name, source, target, dice):
        self.name, self.source, self.target, self.dice = name, source, target, dice
        self.flying = []  # (when it arrives, number, frame)
        self.done = collections.Counter(carried=0, lost=0, late=0, repeated=0, full=0, refused=0)

    def take(self):
        """Takes what is there, a burst at most."""
        for _ in range(BURST):
            try:
                frame = os.read(self.source, 2048)
            except BlockingIOError:
                return
            except OSError:  # the device is down
                return
            self.send_off(frame, time.monotonic())

    def send_off(self, frame, now):
        if self.dice.random() < loss:
            self.done["lost"] += 1
            return
        at = now + delay
        if self.dice.random() < late:
            self.done["late"] += 1
            at += self.dice.uniform(0, jitter)
        self.push(at, frame)
        if self.dice.random() < repeat:
            self.done["repeated"] += 1
            self.push(at + self.dice.uniform(0, jitter), frame)

    def push(self, at, frame):
        if len(self.flying) == ROOM:
            self.done["full"] += 1
            return
        self.done["carried"] += 1
        heapq.heappush(self.flying, (at, self.done["carried"], frame))

    def deliver(self, now):
        """Delivers what has arrived and returns when the next frame does."""
        while self.flying and self.flying[0][0] <= now:
            frame = heapq.heappop(self.flying)[2]
            try:
                os.write(self.target, frame)
            except OSError:  # the device is down, or its queue is full
                self.done["refused"] += 1
        return self.flying[0][0] if self.flying else now + 0.1


def stop(*_):
    global running
    running = False


near_name, far_name = sys.argv[1:3]
seconds, seed = float(sys.argv[3]), int(sys.argv[4])
loss, late, repeat = (int(text) / 1e3 for text in sys.argv[5:8])
delay, jitter = (int(text) / 1e6 for text in sys.argv[8:10])
near, far = port(near_name), tap(far_name)
ways = [
    Direction("from_weir", near.fileno(), far, random.Random(seed)),
    Direction("to_weir", far, near.fileno(), random.Random(seed + 1)),
]
sources = [way.source for way in ways]
running = True
signal.signal(signal.SIGTERM, stop)
end = time.monotonic() + seconds
print("ready")

while running:
    now = time.monotonic()
    if now > end:
        sys.exit(f"the wire between {near_name} and {far_name} was needed for more than {seconds} s")
    pause = min(way.deliver(now) for way in ways) - now
    ready, _, _ = select.select(sources, [], [], max(pause, 0))
    for way in ways:
        if way.source in ready:
            way.take()
missed = struct.unpack("II", near.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
for way in ways:
    way.done["missed"] = missed if way.source == near.fileno() else 0
    print(json.dumps({"way": way.name, **way.done}))
