"""A server on 127.0.0.1 that answers as the Hugging Face Hub and as Google's bucket do.

It also takes uploads, by the requests of huggingface_hub 2.4: repos/create, validate-yaml,
preupload, the LFS batch with its PUT, and commit. (Not by Xet, which set_hub turns off.)

A conftest.py makes a fixture of it with `hub = pytest.fixture(serving)`.
"""

import base64
import hashlib
import json
import re
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from huggingface_hub import constants

TOKEN = "hf_right"  # noqa: S105  # what opens private and gated repositories
COMMIT = "0123456789abcdef0123456789abcdef01234567"
USER = "me"  # whom the token belongs to, who may write only to repositories of that name


@dataclass
class Repo:
    """A repository: one commit, and the branches and tags that mean it.

    That of a dataset is called `datasets/user/name` here. `others` are its other commits.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main",)
    private: bool = False
    gated: bool = False
    others: tuple["Repo", ...] = ()
    tags: object = ()


@dataclass
class Fault:
    """What goes wrong at a path, `times` times or (None) always; what is None goes well."""

    status: int | None = None
    cut: int | None = None  # close the connection after so many bytes of the body
    longer: int = 0  # Content-Length promises so many bytes more than there are
    wait: Event | None = None  # hold the rest of the body back until it is set
    headers: dict[str, str] = field(default_factory=dict)
    times: int | None = None


class HubServer(ThreadingHTTPServer):
    """`repos` by name, `files` of the bucket and `faults` by path; `requests` as they came.

    `commits` are uploads: (repository, message, names of files); `blobs` what LFS got, by SHA-256.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, Repo] = {}
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.ranges = True  # False: `Range` is ignored, as it may be
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.commits: list[tuple[str, str, tuple[str, ...]]] = []
        self.blobs: dict[str, bytes] = {}
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def count(self, path: str = "", method: str = "") -> int:
        """How many requests came: all, or those for one path, or of one method."""
        return sum(path in ("", seen) and method in ("", verb) for verb, seen, _ in self.requests)

    def take_fault(self, path: str) -> Fault:
        fault = self.faults.get(path, Fault())
        if fault.times == 0:
            return Fault()
        if fault.times is not None:
            fault.times -= 1
        return fault

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client has gone, as it may
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def serving(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A running server that this process takes for the Hub and the bucket, with empty caches."""
    with HubServer() as server:
        for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        set_hub(monkeypatch, HF_ENDPOINT=server.url, HF_HOME=str(tmp_path / "hf-home"))
        monkeypatch.setenv("MIXER_MLX_BUCKET", f"{server.url}/mixer_models")
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setenv("no_proxy", "*")
        yield server


def set_hub(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Set environment variables that the Hub's library reads once, when it is imported."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    fresh = runpy.run_path(constants.__file__)
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.setattr(constants, name, fresh[name])
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", f"{fresh['HF_HOME']}/token")


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if path != "/api/agent-harnesses":  # the library asks once in a process, when it wants
            self.server.requests.append((self.command, path, dict(self.headers)))
        self.fault = self.server.take_fault(path)
        if self.fault.status:
            self.answer(self.fault.status, b'{"error": "as the test wants"}')
        elif match := re.fullmatch(
            r"/api/(?:models/|(?=datasets/))((?:datasets/)?[^/]+/[^/]+)(?:/revision/(.+))?", path
        ):
            self.repo_info(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(*match.groups())
        elif path in self.server.files:
            self.content(self.server.files[path], {})
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET  # noqa: N815  # the name that http.server looks for

    # Uploads

    def do_POST(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.server.requests.append((self.command, path, dict(self.headers)))
        self.fault = self.server.take_fault(path)
        data = self.body()
        if self.fault.status:
            self.answer(self.fault.status, b'{"error": "as the test wants"}')
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            message = "Invalid credentials in Authorization header"
            self.answer(401, b"{}", {"X-Error-Message": message})
        elif path == "/api/repos/create":
            self.create(json.loads(data))
        elif path == "/api/validate-yaml":
            self.validate(json.loads(data)["content"])
        elif match := re.fullmatch(r"/api/models/(.+?/.+?)/(preupload|commit)/main", path):
            if match[1] not in self.server.repos:
                self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif not match[1].startswith(f"{USER}/"):
                self.answer(403, b"{}", {"X-Error-Message": "you may not write here"})
            elif match[2] == "preupload":
                self.preupload(json.loads(data))
            else:
                self.commit(match[1], [json.loads(line) for line in data.splitlines()])
        elif match := re.fullmatch(r"/(.+/.+)\.git/info/lfs/objects/batch", path):
            self.lfs_batch(json.loads(data))
        else:
            self.answer(404, b"{}")

    def do_PUT(self) -> None:
        """An object of LFS, whose content must have the name that the batch gave it."""
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        self.fault = self.server.take_fault("/lfs")
        if self.fault.cut is not None:
            self.rfile.read(self.fault.cut)
            self.close_connection = True
            return
        data, oid = self.body(), self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == oid
        self.server.blobs[oid] = data
        self.answer(200, b"")

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def json(self, value: object, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization") or USER
        name = f"{owner}/{asked['name']}"
        if owner != USER:
            self.json({"error": f"You don't have the rights to create a model under {owner}"}, 403)
        elif name in self.server.repos:
            url = f"{self.server.url}/{name}"
            self.json({"error": "You already created this model repo", "url": url}, 409)
        else:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.server.repos[name] = Repo({".gitattributes": b""}, private=private)
            self.json({"url": f"{self.server.url}/{name}", "name": name})

    def validate(self, content: str) -> None:
        """What the Hub checks of a card, of which the form of `model-index` is part."""
        try:
            _, head, _ = content.split("---\n", 2)
            for model in yaml.safe_load(head).get("model-index", []):
                for result in model["results"]:
                    assert {"type", "name"} <= set(result["dataset"])
                    assert all({"type", "value"} <= set(metric) for metric in result["metrics"])
        except (ValueError, KeyError, AssertionError, yaml.YAMLError) as error:
            self.json({"warnings": [], "errors": [{"message": str(error)}]}, 400)
        else:
            self.json({"warnings": [], "errors": []})

    def preupload(self, asked: dict[str, Any]) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in asked["files"]
        ]
        self.json({"files": modes, "commitOid": COMMIT})

    def lfs_batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {**thing, "actions": {"upload": {"href": f"{self.server.url}/lfs/{thing['oid']}"}}}
            for thing in asked["objects"]
        ]
        self.json({"transfer": "basic", "objects": objects})

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files: dict[str, bytes] = {}
        message = ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
                assert len(files[value["path"]]) == value["size"]
        self.server.repos[name].files |= files
        self.server.commits.append((name, message, tuple(sorted(files))))
        url = f"{self.server.url}/{name}/commit/{COMMIT}"
        self.json({"commitUrl": url, "commitOid": COMMIT, "success": True})

    # Downloads

    def repo(self, name: str, revision: str) -> Repo | None:
        """The repository, or None after an answer that says why not, as the Hub words it."""
        repo, token = self.server.repos.get(name), self.headers["Authorization"]
        if token not in (None, f"Bearer {TOKEN}"):
            message = "Invalid credentials in Authorization header"
            self.answer(401, b"{}", {"X-Error-Message": message})
        elif repo is None or (repo.private and not token):
            self.answer(404 if token else 401, b"{}", {"X-Error-Code": "RepoNotFound"})
        else:
            for commit in (repo, *repo.others):
                if revision in (commit.commit, *commit.revisions):
                    return commit
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        return None

    def repo_info(self, name: str, revision: str) -> None:
        if repo := self.repo(name, revision):
            siblings: list[dict[str, object]] = [{"rfilename": file} for file in repo.files]
            if "blobs=" in self.path:
                for sibling, data in zip(siblings, repo.files.values(), strict=True):
                    sibling["size"] = len(data)
            name = name.removeprefix("datasets/")
            info = {"id": name, "sha": repo.commit, "private": repo.private, "siblings": siblings}
            info["tags"] = repo.tags
            self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def resolve(self, name: str, revision: str, file: str) -> None:
        if not (repo := self.repo(name, revision)):
            return
        headers = {"X-Repo-Commit": repo.commit}
        if repo.gated and not self.headers["Authorization"]:
            self.answer(401, b"", {"X-Error-Code": "GatedRepo"})
        elif file not in repo.files:
            self.answer(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        else:
            self.content(repo.files[file], headers)

    def content(self, data: bytes, headers: dict[str, str]) -> None:
        """A file, or the rest of it that `Range` asks for while `If-Range` still holds."""
        etag = f'"{hashlib.md5(data).hexdigest()}"'  # noqa: S324  # as the bucket does
        headers = {"ETag": etag, "Accept-Ranges": "bytes"} | headers
        span = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if span is None or not self.server.ranges or self.headers.get("If-Range", etag) != etag:
            self.answer(200, data, headers)
        elif int(span[1]) >= len(data):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        else:
            headers["Content-Range"] = f"bytes {span[1]}-{len(data) - 1}/{len(data)}"
            self.answer(206, data[int(span[1]) :], headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        sends_body = self.command != "HEAD"
        length = len(body) + (self.fault.longer if sends_body else 0)
        headers = {"Content-Length": str(length)} | (headers or {}) | self.fault.headers
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if sends_body:
            if self.fault.wait is not None:
                half, body = body[: len(body) // 2], body[len(body) // 2 :]
                self.wfile.write(half)
                self.fault.wait.wait()
            self.wfile.write(body[: self.fault.cut])

    def log_message(self, format: str, *args: object) -> None:
        pass
