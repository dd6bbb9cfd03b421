"""A local server that speaks the hub's routes, and can cut connections and corrupt a byte."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves `files` (path → bytes) of one repository.

    cuts: how many downloads are cut after half of their bytes. corruptions: how many downloads have
    their last byte flipped. `ranges` records the Range header of every download.
    """

    def __init__(self, repo: str, files: dict[str, bytes], *, cuts: int = 0, corruptions: int = 0):
        self.repo, self.files = repo, files
        self.cuts, self.corruptions = cuts, corruptions
        self.ranges: list[str | None] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self._answer(body=False)

            def do_GET(self) -> None:
                self._answer(body=True)

            def _answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                if path.startswith(f"/api/models/{hub.repo}"):
                    self._api(path, body)
                    return
                match = re.fullmatch(rf"/{hub.repo}/resolve/[^/]+/(.+)", path)
                if match is None or match[1] not in hub.files:
                    self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)
                    return
                self._file(hub.files[match[1]], body)

            def _api(self, path: str, body: bool) -> None:
                tree = [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(data),
                        "oid": hashlib.sha1(data).hexdigest(),
                        "lfs": {
                            "oid": hashlib.sha256(data).hexdigest(),
                            "size": len(data),
                            "pointerSize": 134,
                        },
                    }
                    for name, data in hub.files.items()
                ]
                info = {
                    "id": hub.repo,
                    "sha": COMMIT,
                    "siblings": [{"rfilename": name} for name in hub.files],
                }
                answer = tree if "/tree/" in path else info
                self._send(200, json.dumps(answer).encode(), {}, body)

            def _file(self, data: bytes, body: bool) -> None:
                headers = {
                    "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                    "X-Repo-Commit": COMMIT,
                    "Accept-Ranges": "bytes",
                }
                if not body:
                    self._send(200, data, headers, body)
                    return
                wanted = self.headers.get("Range")
                hub.ranges.append(wanted)
                start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
                payload = data[start:]
                if hub.corruptions:
                    hub.corruptions -= 1
                    payload = payload[:-1] + bytes([payload[-1] ^ 1])
                if start:
                    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                self._send(206 if start else 200, payload, headers, body)

            def _send(self, status: int, payload: bytes, headers: dict, body: bool) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                if not body:
                    return
                if hub.cuts and "ETag" in headers:
                    hub.cuts -= 1
                    self.wfile.write(payload[: len(payload) // 2])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                self.wfile.write(payload)

        return Handler
