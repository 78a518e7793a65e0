"""A hub on this computer: as much of its HTTP API as pushing and pulling models takes, and faults on request."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_aGoodTokenOfTheOwner"
READER = "hf_aTokenThatMayRead"
Fault = Callable[["_Handler"], bool]  # answers a request itself, and says whether it has


@dataclass
class Repository:
    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})

    def sha(self, branch: str) -> str:
        files = self.branches[branch]
        return hashlib.sha1(repr(sorted((name, data) for name, data in files.items())).encode()).hexdigest()

    def find(self, revision: str) -> dict[str, bytes] | None:
        for branch, files in self.branches.items():
            if revision in (branch, self.sha(branch)):
                return files
        return None


class FakeHub:
    """Repositories by name, what was asked, and faults: (method, start of the path) -> how it goes wrong."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: dict[tuple[str, str], Fault] = {}
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, token
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        return self.repositories[repo].branches[branch]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def status(code: int) -> Fault:
    def answer(request: _Handler) -> bool:
        request.say({"error": f"made to fail with {code}"}, code)
        return True

    return answer


def stalled(seconds: float) -> Fault:
    def answer(request: _Handler) -> bool:
        time.sleep(seconds)
        return True

    return answer


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.asked.append((self.command, path, token))
        for (method, start), fault in self.hub.faults.items():
            if method == self.command and start in path and fault(self):
                self.close_connection = True
                return
        self._answer(path, body, token)

    do_GET = do_HEAD = do_POST = do_PUT = _any  # noqa: N815

    def _answer(self, path: str, body: bytes, token: str | None) -> None:
        parts = path.strip("/").split("/")
        if self.command in ("GET", "HEAD"):
            if "resolve" in parts:
                return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), token)
            return self._info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main", token)
        if path.startswith("/lfs/"):
            self.hub.blobs[parts[1]] = body
            return self.say({})
        if token != TOKEN:
            return self.say({"error": "Invalid credentials"}, 401 if token != READER else 403)
        asked = json.loads(body) if not path.count("/commit/") else None
        if path == "/api/repos/create":
            return self._create(asked)
        if path == "/api/validate-yaml":
            assert asked["content"].startswith("---\n")
            return self.say({"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            href = {
                one["oid"]: {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}} for one in asked["objects"]
            }
            return self.say({"objects": [{**one, "actions": href[one["oid"]]} for one in asked["objects"]]})
        repository = self.hub.repositories["/".join(parts[2:4])]
        if parts[4] == "branch":
            repository.branches.setdefault("/".join(parts[5:]), dict(repository.branches["main"]))
            return self.say({})
        if parts[4] == "preupload":
            kinds = {
                one["path"]: "lfs" if one["path"].endswith(".safetensors") else "regular" for one in asked["files"]
            }
            files = [{"path": name, "uploadMode": kind, "shouldIgnore": False} for name, kind in kinds.items()]
            return self.say({"files": files})
        assert parts[4] == "commit"
        return self._commit("/".join(parts[2:4]), "/".join(parts[5:]), [json.loads(line) for line in body.splitlines()])

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.address}/{name}"}
        if name in self.hub.repositories:
            return self.say({"error": "You already created this model repo", **url}, 409)
        self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        return self.say(url)

    def _commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> None:
        repository = self.hub.repositories[name]
        files = repository.branches[branch]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.say(
            {
                "commitUrl": f"{self.hub.address}/{name}/commit/{repository.sha(branch)}",
                "commitOid": repository.sha(branch),
                "success": True,
            }
        )

    def _seen(self, name: str, token: str | None) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and token not in (TOKEN, READER)):
            self.say({"error": "Repository not found"}, 404 if token else 401, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _info(self, name: str, revision: str, token: str | None) -> None:
        repository = self._seen(name, token)
        if repository is None:
            return
        files = repository.find(revision)
        if files is None:
            self.say({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return
        branch = next(key for key, value in repository.branches.items() if value is files)
        listed = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
        self.say({"id": name, "sha": repository.sha(branch), "private": repository.private, "siblings": listed})

    def _resolve(self, name: str, revision: str, file: str, token: str | None) -> None:
        repository = self._seen(name, token)
        files = None if repository is None else repository.find(revision)
        if repository is None:
            return
        if files is None or file not in files:
            self.say({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        data = files[file]
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": revision}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send(data[start:], 206 if start else 200, headers)

    def say(self, value: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(value).encode(), code, {"Content-Type": "application/json", **(headers or {})})

    def send(self, data: bytes, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
