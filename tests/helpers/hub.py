"""A small server that answers like the Hugging Face hub, for repositories that are folders on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves ``repositories``, folders by name; ``requests`` are the paths that were asked for."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.requests = repositories, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self, name: str) -> list[Path]:
        return sorted(path for path in self.repositories[name].rglob("*") if path.is_file())


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.requests.append(path)
        is_api = path.startswith("api/models/")
        parts = path.removeprefix("api/models/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        if name not in self.server.repositories:
            self._fail("RepoNotFound")
        elif is_api:
            self._send(json.dumps(self._tree(name) if rest[:1] == ["tree"] else self._info(name)).encode())
        else:
            self._send_file(self.server.repositories[name] / "/".join(rest[2:]))  # after resolve/<revision>

    do_HEAD = do_GET

    def _info(self, name: str) -> dict[str, object]:
        siblings = [{"rfilename": entry["path"]} for entry in self._tree(name)]
        return {"id": name, "modelId": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}

    def _tree(self, name: str) -> list[dict[str, object]]:
        root = self.server.repositories[name]
        return [
            {"type": "file", "path": file.relative_to(root).as_posix(), "size": file.stat().st_size,
             "oid": _etag(file.read_bytes())}
            for file in self.server.files(name)
        ]  # fmt: skip

    def _send_file(self, file: Path) -> None:
        if file.is_file():
            self._send(file.read_bytes())
        else:
            self._fail("EntryNotFound")

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{_etag(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _fail(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _etag(body: bytes) -> str:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()


@contextmanager
def serving(repositories: dict[str, Path]) -> Iterator[Hub]:
    """Serve repositories until the block ends."""
    hub = Hub(repositories)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
