"""A replica for tests: `python small_replica.py PORT [HOST]`. The same request has the same answer, from any of them.

It dies at once of SIGTERM, so that whoever ends it must have let its requests end before.
"""

import hashlib
import json
import os
import secrets
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WEDGED = threading.Event()


def words_of(seed, count):
    return [hashlib.sha256(f"{seed} {number}".encode()).hexdigest()[:8] for number in range(count)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        if WEDGED.is_set():
            time.sleep(1e6)
        self.whole(200, {"path": self.path, "headers": dict(self.headers)})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("transfer-encoding") == "chunked":
            body = self.chunks()
        if self.path == "/wedge":
            WEDGED.set()
        if WEDGED.is_set():
            time.sleep(1e6)
        if self.path == "/count":
            return self.whole(200, {"bytes": len(body), "hash": hashlib.sha256(body).hexdigest()})
        if self.path == "/die":
            os._exit(1)
        given = json.loads(body)
        words = words_of(given["seed"], given.get("words", 5))
        pause = given.get("pause", 0.0)
        if self.path == "/busy":
            return self.whole(503, {"error": "busy"})
        if self.path == "/answer":
            time.sleep(pause * len(words))
            return self.whole(200, {"words": words})
        self.send_response(200)
        kind = "text/event-stream" if self.path in ("/stream", "/draw") else "text/plain"
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        name = secrets.token_hex(4)
        if self.path == "/draw":
            words = words_of(name, len(words))
        for number, word in enumerate(words):
            if self.path == "/bytes":
                self.chunk(word.encode())
            else:
                said = {"id": name, "created": time.time(), "number": number, "word": word}
                self.chunk(f"data: {json.dumps(said)}\n\n".encode())
            time.sleep(pause)
        self.chunk(b"data: [DONE]\n\n" if kind != "text/plain" else b".")
        self.wfile.write(b"0\r\n\r\n")

    def whole(self, status, said):
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "x-private")
        self.send_header("x-private", "of this connection")
        self.end_headers()
        self.wfile.write(body)

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def chunks(self):
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


if __name__ == "__main__":
    print("begins", flush=True)
    host = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
    Server((host, int(sys.argv[1])), Handler).serve_forever()
