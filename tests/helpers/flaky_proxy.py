"""An HTTP proxy on loopback that fails for a seeded share of the requests, in front of a real server."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

# What happens to a request instead of a plain answer. After "lost answer", the server has done it.
FAULTS = ("reset", "lost answer", "cut answer", "status 500", "status 503", "slow")


class FlakyProxy(ThreadingHTTPServer):
    """Forwards requests to a port of 127.0.0.1; ``counts``: how often each fault happened.

    ``share``: the share of requests with a fault. ``hold``: a text; a request whose first line has it is never
    answered, and `held` is set.
    """

    daemon_threads = True

    def __init__(self, port: int, share: float = 0.0, seed: int = 0, hold: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.share, self.hold = port, share, hold
        self.counts: Counter[str] = Counter()
        self.held, self.released = threading.Event(), threading.Event()
        self._random, self._lock = random.Random(seed), threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_fault(self) -> str:
        with self._lock:
            fault = self._random.choice(FAULTS) if self._random.random() < self.share else ""
            self.counts[fault] += 1
            return fault

    def handle_error(self, *_: object) -> None:
        """Print nothing: clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyProxy

    def log_message(self, *_: object) -> None:
        pass

    def forward(self) -> None:
        body = self._body()
        if self.server.hold and self.server.hold in self.requestline:
            self.server.held.set()
            self.server.released.wait(120)
            return self._reset()
        fault = self.server.next_fault()
        if fault == "reset":
            return self._reset()
        if fault.startswith("status"):
            return self._answer(int(fault.split()[1]), [], b"")
        if fault == "slow":
            time.sleep(0.2)
        status, headers, answer = self._ask(body)
        if fault == "lost answer":
            return self._reset()
        if fault == "cut answer" and len(answer) > 1:
            self._answer(status, headers, answer, len(answer) // 2)
            return self._reset()
        return self._answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = forward

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        dropped = {"transfer-encoding", "content-length", "expect", "connection"}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        if body or self.command in {"PUT", "POST"}:
            headers["Content-Length"] = str(len(body))
        try:
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list, answer: bytes, sent: int | None = None) -> None:
        self.send_response_only(status)
        named = {name.lower() for name, _ in headers}
        for name, value in headers:
            if name.lower() not in {"transfer-encoding", "connection"} and not (
                name.lower() == "content-length" and self.command != "HEAD"
            ):
                self.send_header(
                    name, value.replace(f":{self.server.upstream}", f":{self.server.server_address[1]}")
                )
        if self.command != "HEAD" or "content-length" not in named:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer[:sent])
            self.wfile.flush()

    def _reset(self) -> None:
        """Close with a reset, as a router or a killed server does."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
