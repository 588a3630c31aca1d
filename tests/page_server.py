"""The part of the server's API that the page asks, for a model of a test."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from blt.api import ByteLM
from blt.codec import BYTE_OFFSET
from blt.configuration import from_dict, to_dict
from blt.generation.generate import stream_bytes
from blt.inspection import PAGE_POLICY, page_files, read
from blt.patching import PatchRule


@contextmanager
def serve_page(lm: ByteLM) -> Iterator[str]:
    """Serve the page and what it asks; yield the address."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, content: bytes, *, kind: str = "application/json", status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", PAGE_POLICY)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self):
            if self.path == "/api/model":
                model = {"id": "tiny", "rule": to_dict(lm.patch_rule), "has_entropy_model": True, "max_bytes": 4096}
                self.answer(json.dumps(model).encode())
            else:
                kind, content = page_files()["index.html" if self.path == "/" else self.path.removeprefix("/page/")]
                self.answer(content, kind=kind)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/api/patch":
                rule = from_dict(PatchRule, body["rule"])
                with lock:
                    reading = read(lm, bytes.fromhex(body["hex"]), rule=rule, num_alternatives=body["alternatives"])
                self.answer(json.dumps(reading.to_dict()).encode())
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.close_connection = True
            options = {name: body[name] for name in ("temperature", "top_p", "seed") if name in body}
            prompt = bytes(byte_id - BYTE_OFFSET for byte_id in body["prompt"])
            try:
                for piece in stream_bytes(lm, prompt, max_new_bytes=body["max_tokens"], **options):
                    self.event(piece.hex(), None)
                    time.sleep(0.002)  # as a larger model would take, so that it can be stopped
                self.event("", "length")
                self.wfile.write(b"data: [DONE]\n\n")
            except (BrokenPipeError, ConnectionResetError):
                pass

        def event(self, hexadecimal: str, reason: str | None) -> None:
            choice = {"index": 0, "text": "", "hex": hexadecimal, "finish_reason": reason}
            self.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
