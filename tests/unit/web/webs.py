"""A web of one host on the loopback interface that keeps connections open, and remembers who asked for what and when."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """An answer: body, status and headers."""

    body: bytes = b"<html></html>"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class Web:
    """``pages``: path to a page, or to a function of how often it was asked for (from 1)."""

    url: str = ""
    pages: dict[str, Page | Callable[[int], Page]] = field(default_factory=dict)
    asked: list[tuple[str, float]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0
    most_at_once: int = 0

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@contextmanager
def serve(pages: dict[str, Page | Callable[[int], Page]]) -> Iterator[Web]:
    web, lock, counts, now = Web(pages=pages), threading.Lock(), Counter(), Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self):
            super().setup()
            with lock:
                web.connections += 1

        def do_GET(self):
            with lock:
                counts[self.path] += 1
                now["open"] += 1
                web.most_at_once = max(web.most_at_once, now["open"])
                web.asked.append((self.path, time.monotonic()))
                web.headers.append(dict(self.headers))
                page = web.pages.get(self.path, Page(status=404))
                page = page if isinstance(page, Page) else page(counts[self.path])
            time.sleep(page.seconds)
            body = page.body
            if self.headers.get("If-None-Match") and self.headers["If-None-Match"] == page.headers.get("ETag"):
                self.send_response(304)
                body = b""
            else:
                self.send_response(page.status)
                self.send_header("Content-Length", str(len(body)))
            for name, value in ({"Content-Type": "text/html"} | page.headers).items():
                self.send_header(name, value)
            self.end_headers()
            with lock:
                now["open"] -= 1
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request, client_address):
            pass  # a client that goes away is what many tests want

    server = Server(("127.0.0.1", 0), Handler)
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
