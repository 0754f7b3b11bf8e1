"""Many TLS clients at once; each connects again and again, asks, and compares every answer and certificate.

Usage: tls_clients.py ADDRESS PORT AUTHORITY CLIENTS SECONDS HOST=SERVER...
Prints the number of answers per server; ends with 1 at the first wrong answer or failed connection.
"""

import asyncio
import collections
import random
import ssl
import sys

QUESTIONS = 4


async def ask(address, port, context, host, server, random_bytes):
    reader, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
    for _ in range(QUESTIONS):
        question = random_bytes(random.randint(1, 700)).hex().encode()
        writer.write(question + b"\n")
        answer = await reader.readline()
        if answer != server.encode() + b":" + question + b"\n":
            raise SystemExit(f"{host}: asked {question[:40]!r}..., got {answer[:60]!r}...")
    writer.close()
    await writer.wait_closed()


async def main(address, port, authority, clients, seconds, hosts):
    context = ssl.create_default_context(cafile=authority)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    answers = collections.Counter()

    async def client(number):
        random_bytes = random.Random(number).randbytes
        while loop.time() < end:
            host, server = hosts[number % len(hosts)]
            async with asyncio.timeout(30):
                await ask(address, port, context, host, server, random_bytes)
            answers[server] += QUESTIONS
            number += 1

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    for server in sorted(answers):
        print(server, answers[server])


asyncio.run(
    main(
        sys.argv[1],
        int(sys.argv[2]),
        sys.argv[3],
        int(sys.argv[4]),
        float(sys.argv[5]),
        [tuple(pair.split("=")) for pair in sys.argv[6:]],
    )
)
