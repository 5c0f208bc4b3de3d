"""A real S3 endpoint on loopback: moto's server in a process of its own."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import requests

BUCKET = "w2w-test"


@contextmanager
def serve(check_credentials: bool = False) -> Iterator[dict[str, str]]:
    """The environment that points at a running server with an empty bucket. With ``check_credentials`` the bucket is made by
    the caller's first, unchecked requests, and every later one must be signed by a known key."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = os.environ | ({"INITIAL_NO_AUTH_ACTION_COUNT": "2"} if check_credentials else {})
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                requests.get(endpoint + "/moto-api/", timeout=1)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        settings = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }
        client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        client.create_bucket(Bucket=BUCKET)
        yield settings
    finally:
        server.kill()
        server.wait()


class Proxy(ThreadingHTTPServer):
    """Stands before a server and does what ``fault(method, path, nth)`` says with the n-th request: None passes it on,
    "busy" answers 503 SlowDown, "reset" hangs up at once, "lost" passes it on and hangs up in place of its answer, "cut" hangs
    up in the middle of it."""

    daemon_threads = True
    endpoint: str

    def __init__(self, endpoint: str, fault: Callable[[str, str, int], str | None]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.to = endpoint.removeprefix("http://")
        self.fault, self.lock = fault, threading.Lock()
        self.asked: list[tuple[str, str]] = []
        self.faults: list[str] = []

    def handle_error(self, request, client_address) -> None:
        """Clients that went away are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def handle_one(self) -> None:
        body = self._body()
        proxy: Proxy = self.server  # type: ignore[assignment]
        with proxy.lock:
            proxy.asked.append((self.command, self.path))
            fault = proxy.fault(self.command, self.path, len(proxy.asked))
            if fault:
                proxy.faults.append(fault)
        if fault == "busy":
            self._answer(503, [], b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Slow down.</Message></Error>")
            return
        if fault == "reset":
            self._hang_up()
            return
        onward = http.client.HTTPConnection(proxy.to, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "expect", "connection")}
        onward.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
        answer = onward.getresponse()
        content = answer.read()
        if fault == "lost":
            self._hang_up()
            return
        kept = [h for h in answer.getheaders() if h[0].lower() not in ("transfer-encoding", "connection", "server", "date")]
        self._answer(answer.status, kept, content, len(content) // 2 if fault == "cut" else None)
        if fault == "cut":
            self._hang_up()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, most: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        elif not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:most])


@contextmanager
def through(endpoint: str, fault: Callable[[str, str, int], str | None]) -> Iterator[Proxy]:
    """A running proxy before ``endpoint``; its own is ``proxy.endpoint``."""
    proxy = Proxy(endpoint, fault)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    proxy.endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
