"""A Google Cloud Storage to read from, on loopback: the first argument is a folder, whose folders are the buckets.

In a process of its own: pyarrow waits for some answers with Python's lock in its hands. Prints its port.
"""

import json
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_OBJECTS = "/storage/v1/b/"


class Handler(BaseHTTPRequestHandler):
    """GET of objects.get, objects.list and media, as far as pyarrow asks (cloud.google.com/storage/docs/json_api/v1)."""

    protocol_version = "HTTP/1.1"

    def __init__(self, root: Path, *args):
        self.root = root
        super().__init__(*args)

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        parts, asked = urlsplit(self.path), parse_qs(urlsplit(self.path).query)
        bucket, _, name = unquote(parts.path.removeprefix(_OBJECTS)).partition("/o")
        name = name.removeprefix("/")
        file = self.root / bucket / name
        if bucket == "locked":
            self.send(403, {"error": {"code": 403, "message": "locked@x.test does not have storage.objects.get access"}})
        elif not name:
            prefix = asked.get("prefix", [""])[0]
            files = sorted(f for f in (self.root / bucket).rglob("*") if f.is_file())
            names = [n for f in files if (n := f.relative_to(self.root / bucket).as_posix()).startswith(prefix)]
            self.send(200, {"kind": "storage#objects", "items": [self.about(bucket, n) for n in names]})
        elif not file.is_file():
            self.send(404, {"error": {"code": 404, "message": "No such object"}})
        elif asked.get("alt") == ["media"]:
            self.media(file.read_bytes())
        else:
            self.send(200, self.about(bucket, name))

    def about(self, bucket: str, name: str) -> dict:
        told = {"kind": "storage#object", "name": name, "bucket": bucket, "generation": "1", "metageneration": "1"}
        size = (self.root / bucket / name).stat().st_size
        return told | {"size": str(size), "updated": "2026-01-02T03:04:05Z", "timeCreated": "2026-01-02T03:04:05Z"}

    def media(self, data: bytes) -> None:
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last or len(data)) + 1]
        self.send(206, part, {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"})

    def send(self, status: int, content: dict | bytes, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, Path(sys.argv[1])))
    print(server.server_port, flush=True)
    server.serve_forever()
