"""An HTTP server whose every answer is its name. Usage: http_server.py NAME ADDRESS PORT"""

import http.server
import sys

name = sys.argv[1].encode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer.request_queue_size = 128
server = http.server.ThreadingHTTPServer((sys.argv[2], int(sys.argv[3])), Handler)
print("ready")
server.serve_forever()
