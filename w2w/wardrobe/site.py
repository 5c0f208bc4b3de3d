"""The shop's folder as a web site, served on the loopback interface by a process of its own.

python -m w2w.wardrobe.site FOLDER [--port 0] [--log requests.jsonl] prints its base URL once it listens; --profile FILE writes
what `w2w crawl --profile` needs.

    /  /shop?page=N  /style?page=N          listings        /robots.txt     rules, and where the sitemap is
    /p/PRODUCT  /style/POST                 pages           /sitemap.xml    index of plain and gzipped parts
    /images/FILE  /posts/FILE               pictures        /feed.json      the products, page by page
    /account/...  /cart?add=...  ?sort=     linked from everywhere, and disallowed; /account/help is allowed
"""

import argparse
import email.utils
import http.client
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from w2w.wardrobe.pages import TEXT, Reply, Site

# the profile that a data engineer would write to crawl this site; the address changes from run to run
PROFILE = """\
name: wardrobe
start: ["{url}/style?page=1"]
robots_sitemaps: true
rules:
  - {{match: '/p/[^/?]+$', kind: product}}
  - {{match: '/style/post-\\d+$', kind: post}}
  - {{match: '/style\\?page=\\d+$', kind: page}}
kinds:
  product:
    record: product
    fields:
      sku: {{css: article.product, attribute: data-product-id}}
  post:
    record: post
    fields:
      image: {{css: article.post img.photo, attribute: src, required: true}}
      product_urls: {{css: a.tagged, attribute: href}}
"""
_PIECE = 65536


def not_modified(reply: Reply, if_none_match: str | None, if_modified_since: str | None) -> bool:
    """Whether a conditional request is answered by 304 (RFC 9110, section 13.2.2: an ETag takes precedence)."""
    if reply.status != 200 or reply.modified is None:
        return False
    if if_none_match is not None:
        tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        return "*" in tags or reply.etag in tags
    try:
        since = email.utils.parsedate_to_datetime(if_modified_since) if if_modified_since else None
    except ValueError:
        since = None
    return since is not None and int(reply.modified) <= since.timestamp()


class Log:
    """Requests as JSON lines, and the number in flight."""

    def __init__(self, path: Path | None):
        self._file = open(path, "a", encoding="utf-8") if path else None  # noqa: SIM115 - as long as the server is
        self._lock = threading.Lock()
        self._numbers, self.in_flight = itertools.count(1), 0

    def enter(self) -> tuple[int, int]:
        """The request's number, and the number in flight including it."""
        with self._lock:
            self.in_flight += 1
            return next(self._numbers), self.in_flight

    def leave(self, line: dict) -> None:
        with self._lock:
            self.in_flight -= 1
            if self._file:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()


class Handler(BaseHTTPRequestHandler):
    """One connection. A subclass with other answers for some targets overrides ``answer`` and uses ``write`` or ``drip``.

    A request is in flight from its head until its last write begins: never more than the client has open, so a log that shows
    too many is proof. The log line is written before the last write, so whoever has the answer finds the line.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: "Server"
    _connections = itertools.count(1)

    def setup(self) -> None:
        super().setup()
        self.connection_number = next(self._connections)

    def do_GET(self) -> None:
        number, in_flight = self.server.log.enter()
        self._left = False
        self._line: dict[str, Any] = {
            "number": number,
            "connection": self.connection_number,
            "in_flight": in_flight,
            "start": time.monotonic(),
            "end": 0.0,
            "wall_start": time.time(),
            "wall_end": 0.0,
            "method": self.command,
            "target": self.path,
            "host": self.headers.get("Host", ""),
            "user_agent": self.headers.get("User-Agent", ""),
            "if_none_match": self.headers.get("If-None-Match"),
            "if_modified_since": self.headers.get("If-Modified-Since"),
            "status": 0,
            "retry_after": None,
            "bytes": 0,
            "cut": False,
        }
        try:
            time.sleep(self.server.latency_s)
            self.answer()
        except OSError:  # the client disconnected
            self._line["cut"] = True
            self.close_connection = True
        finally:
            self._leave()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_GET

    def answer(self) -> None:
        """Sends the site's reply."""
        if self.command not in ("GET", "HEAD"):
            self.close_connection = True  # its body is not read
            self.send(Reply(405, b"only GET and HEAD\n", TEXT, headers={"Allow": "GET, HEAD"}))
            return
        parts = urlsplit("http://x" + self.path if self.path.startswith("/") else self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.send(self.server.site.reply(unquote(parts.path), query, self.base))

    @property
    def base(self) -> str:
        """Scheme, host and port as the client names them."""
        host = self.headers.get("Host", "")
        return f"http://{host}" if re.fullmatch(r"[\w.\-:\[\]]+", host) else self.server.url

    def send(self, reply: Reply) -> None:
        """The whole reply, or 304 if the request's condition holds."""
        headers = dict(reply.headers)
        status, body = reply.status, reply.body
        if reply.modified is not None:
            headers |= {"ETag": reply.etag, "Last-Modified": email.utils.formatdate(reply.modified, usegmt=True)}
        if not_modified(reply, self.headers.get("If-None-Match"), self.headers.get("If-Modified-Since")):
            status, body = 304, b""
        else:
            headers |= {"Content-Type": reply.content_type, "Content-Length": str(len(body))}
        pieces = self.head(status, headers) + (b"" if self.command == "HEAD" else body)
        for start in range(0, len(pieces), _PIECE):
            self.write(pieces[start : start + _PIECE], last=start + _PIECE >= len(pieces))

    def head(self, status: int, headers: dict[str, str]) -> bytes:
        """Status line and headers, noted in the log."""
        self._line |= {"status": status, "retry_after": headers.get("Retry-After")}
        headers = {"Server": "wardrobe", "Date": email.utils.formatdate(usegmt=True)} | headers
        if self.close_connection:
            headers |= {"Connection": "close"}
        phrase = http.client.responses.get(status, "")
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def write(self, piece: bytes, last: bool = False) -> None:
        self._line["bytes"] += len(piece)
        if last:
            self._leave()
        self.wfile.write(piece)

    def drip(self, start: bytes, piece: bytes, every_s: float, seconds: float) -> None:
        """Sends ``start``, then one piece at a time; the connection ends with it."""
        self.close_connection = True
        self._line["cut"] = True
        self.write(start)
        for _ in range(int(seconds / every_s)):
            self.hold(every_s)
            self.write(piece)

    def hold(self, seconds: float) -> None:
        """Waits until the time is up or the client disconnects; until then it counts as in flight."""
        if select.select([self.connection], [], [], seconds)[0] and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError("the client went away")

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self.server.log.leave(self._line | {"end": time.monotonic(), "wall_end": time.time()})

    def log_message(self, format: str, *args: object) -> None:
        pass  # the request log says more


class Server(ThreadingHTTPServer):
    """The site at an address; ``latency_s`` is the delay before each answer, so that concurrent requests overlap."""

    daemon_threads = True
    request_queue_size = 512

    site_type, handler_type = Site, Handler

    def __init__(self, site: Site, log: Log, address: tuple[str, int], latency_s: float):
        super().__init__(address, self.handler_type)
        self.site, self.log, self.latency_s = site, log, latency_s
        self.url = f"http://{address[0]}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # disconnecting clients are normal
            super().handle_error(request, client_address)


class Served(NamedTuple):
    """A running server: its base URL, its request log and its process id."""

    url: str
    log: Path
    pid: int

    def requests(self) -> list[dict]:
        """The log so far, in order of completion."""
        return read_log(self.log)


def read_log(path: Path) -> list[dict]:
    """The request log's lines, without one that is still being written."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def serve(folder: Path, log: Path, module: str = "w2w.wardrobe.site", **options: object) -> Iterator[Served]:
    """The shop in ``folder``, served by a process that ends with the block, even if this process is killed.

    ``options`` are those of the command line (port=8080, crawl_delay_s=1 ...); ``module``: another server with the same ones.
    """
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    command = [sys.executable, "-m", module, str(folder), f"--log={log}", f"--parent={os.getpid()}", *flags]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the server did not start: {' '.join(command)}")
            yield Served(url, Path(log), process.pid)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def last_port(profile: Path) -> int:
    """The port that a PROFILE was filled with, if nobody listens on it now; otherwise 0."""
    found = re.search(r"127\.0\.0\.1:(\d+)", profile.read_text(encoding="utf-8")) if profile.exists() else None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(found[1]) if found else 0))
        except OSError:
            return 0
    return int(found[1]) if found else 0


def main(arguments: Sequence[str] | None = None, server_type: type[Server] = Server) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="as write_shop wrote it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--log", type=Path, help="requests are appended here, one JSON object per line")
    parser.add_argument("--profile", type=Path, help="a profile of this site for `w2w crawl` is written here")
    parser.add_argument("--page-size", type=int, default=24)
    parser.add_argument("--crawl-delay-s", type=float, help="asked for in robots.txt")
    parser.add_argument("--latency-s", type=float, default=0.0, help="waited before each answer")
    parser.add_argument("--parent", type=int, help="end when this is no longer the parent process")
    options = parser.parse_args(arguments)
    if not (options.folder / "products.csv").exists():
        parser.error(f"{options.folder} holds no products.csv: write_shop makes one")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    site = server_type.site_type(options.folder, options.page_size, options.crawl_delay_s)
    server = server_type(site, Log(options.log), (options.host, options.port), options.latency_s)
    if options.parent:
        threading.Thread(target=_end_with, args=(options.parent,), daemon=True).start()
    if options.profile:
        options.profile.write_text(PROFILE.format(url=server.url), encoding="utf-8")
    print(server.url, flush=True)
    server.serve_forever()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(0)


if __name__ == "__main__":
    main()
