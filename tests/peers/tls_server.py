"""A TLS server that answers each line with its name and the line. Usage: tls_server.py NAME ADDRESS PORT CERTIFICATE KEY"""

import asyncio
import ssl
import sys


async def main(name, address, port, certificate, key):
    async def serve(reader, writer):
        try:
            while line := await reader.readline():
                writer.write(name.encode() + b":" + line)
                await writer.drain()
            writer.close()
        except (ConnectionError, ssl.SSLError):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    await asyncio.start_server(serve, address, port, ssl=context, backlog=1024)
    print("ready")
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]))
