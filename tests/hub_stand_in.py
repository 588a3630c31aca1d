"""A Hub of one's own: enough of the Hub's HTTP interface for the real `huggingface_hub` to talk to, in this process.

Files of more than `LFS_FROM` bytes take the way of large files: batch, upload, verify, and a redirect on download.
"""

import base64
import fnmatch
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

try:
    from huggingface_hub.utils import close_session
except ImportError:  # before huggingface_hub 1.0
    from huggingface_hub.utils import reset_sessions as close_session

LFS_FROM = 10_000
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"
USER = "me"


@dataclass
class Repository:
    """A model: its commits, each a whole tree of files, and its branches."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    gated: bool = False
    private: bool = False

    def commit(self, branch, files, message):
        content = repr(sorted((path, hashlib.sha256(data).hexdigest()) for path, data in files.items()))
        sha = hashlib.sha1(f"{len(self.commits)} {content}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def resolve(self, revision):
        return self.branches.get(revision, revision if revision in self.commits else None)


class Hub:
    """The server; `url` is its address, `requests` all that it was asked."""

    def __init__(self):
        self.repositories = {}
        self.large_files = {}
        self.requests = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.storage = f"http://localhost:{self.server.server_port}"  # large files lie with another host, as they do
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def add(self, name, folder, **options):
        """Put a folder there, as someone's first commit."""
        repository = self.repositories[name] = Repository(**options)
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        repository.commit("main", files, "first")
        return repository

    def asked(self, pattern):
        """Count the requests of a form such as `GET */resolve/*`."""
        return sum(fnmatch.fnmatch(request, pattern) for request in self.requests)


def set_endpoint(monkeypatch, url):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@contextmanager
def the_only_hub(monkeypatch, folder):
    """Let this process know no other Hub; nobody is logged in, and the cache, in the folder, is empty."""
    stand_in = Hub()
    set_endpoint(monkeypatch, stand_in.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(folder / "no-tokens"), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    close_session()
    disable_progress_bars()
    try:
        yield stand_in
    finally:
        close_session()
        enable_progress_bars()
        stand_in.stop()


class _RefusalError(Exception):
    def __init__(self, status, code=None, message="no", **more):
        super().__init__(message)
        self.status, self.code, self.more = status, code, more


def _handler(hub):
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 (names of http.server)

    def _answer(self):
        address = urlsplit(self.path)
        self.query = parse_qs(address.query)
        self.hub.requests.append(f"{self.command} {unquote(address.path)}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        try:
            self._route(parts)
        except _RefusalError as refusal:
            headers = {"X-Error-Message": str(refusal)} | ({"X-Error-Code": refusal.code} if refusal.code else {})
            self._send(
                json.dumps({"error": str(refusal)} | refusal.more).encode(), status=refusal.status, headers=headers
            )

    def _route(self, parts):
        match parts:
            case ["api", "repos", "create"]:
                self._create()
            case ["api", "validate-yaml"]:
                self._json({"errors": [], "warnings": []})
            case ["api", "models", owner, name]:
                self._information(f"{owner}/{name}", "main")
            case ["api", "models", owner, name, "revision", revision]:
                self._information(f"{owner}/{name}", revision)
            case ["api", "models", owner, name, "tree", revision, *_]:
                self._tree(f"{owner}/{name}", revision)
            case ["api", "models", owner, name, "branch", branch]:
                self._branch(f"{owner}/{name}", branch)
            case ["api", "models", owner, name, "preupload", _]:
                self._preupload(f"{owner}/{name}")
            case ["api", "models", owner, name, "commit", branch]:
                self._commit(f"{owner}/{name}", branch)
            case [owner, name, "info", "lfs", "objects", "batch"]:
                self._batch(f"{owner}/{name.removesuffix('.git')}")
            case ["large", oid]:
                self._large(oid)
            case ["verify", oid]:
                self._verify(oid)
            case [owner, name, "resolve", revision, *path]:
                self._file(f"{owner}/{name}", revision, "/".join(path))
            case _:
                raise _RefusalError(404, message=f"the stand-in has no {self.path}")

    def _send(self, content=b"", *, status=200, headers=None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, values):
        self._send(json.dumps(values).encode(), headers={"Content-Type": "application/json"})

    @property
    def _is_known(self):
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {TOKEN}"):
            raise _RefusalError(401, message="Invalid credentials in Authorization header")
        return given is not None

    def _repository(self, name, *, write=False):
        repository = self.hub.repositories.get(name)
        if write and not self._is_known:
            raise _RefusalError(401, message="Invalid username or password.")
        if repository is None or (repository.private and not self._is_known):
            raise _RefusalError(404 if self._is_known else 401, "RepoNotFound", "Repository not found")
        if write and not name.startswith(f"{USER}/"):
            raise _RefusalError(403, message="You don't have the rights")
        return repository

    def _revision(self, name, revision):
        repository = self._repository(name)
        sha = repository.resolve(revision)
        if sha is None:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, sha, repository.commits[sha]

    def _information(self, name, revision):
        _, sha, files = self._revision(name, revision)
        self._json({"id": name, "sha": sha, "siblings": [{"rfilename": path} for path in sorted(files)]})

    def _tree(self, name, revision):
        _, _, files = self._revision(name, revision)
        self._json([_entry(path, data) for path, data in sorted(files.items())])

    def _file(self, name, revision, path):
        repository, sha, files = self._revision(name, revision)
        if repository.gated and not self._is_known:
            raise _RefusalError(401, "GatedRepo", "Access to this model is restricted")
        if path not in files:
            raise _RefusalError(404, "EntryNotFound", "Entry not found")
        data, headers = files[path], {"X-Repo-Commit": sha}
        if len(data) < LFS_FROM:
            self._send(data, headers=headers | {"ETag": f'"{_blob(data)}"'})
            return
        oid = hashlib.sha256(data).hexdigest()
        self.hub.large_files[oid] = data
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(data))}
        self._send(status=302, headers=headers | linked | {"Location": f"{self.hub.storage}/large/{oid}"})

    def _create(self):
        values = json.loads(self.body)
        if not self._is_known:
            raise _RefusalError(401, message="Invalid username or password.")
        owner = values.get("organization") or USER
        if owner != USER:
            raise _RefusalError(403, message="You don't have the rights to create a model there")
        name = f"{owner}/{values['name']}"
        if name in self.hub.repositories:
            raise _RefusalError(409, message="You already created this model repo", url=f"{self.hub.url}/{name}")
        private = values.get("visibility") == "private" or values.get("private") is True  # newer and older clients
        repository = self.hub.repositories[name] = Repository(private=private)
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs"}, "initial commit")
        self._json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def _branch(self, name, branch):
        repository = self._repository(name, write=True)
        if branch in repository.branches:
            raise _RefusalError(409, message="Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        self._json({})

    def _preupload(self, name):
        self._repository(name, write=True)
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= LFS_FROM else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": modes})

    def _batch(self, name):
        self._repository(name, write=True)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            oid = wanted["oid"]
            actions = {"upload": {"href": f"{self.hub.storage}/large/{oid}"}}
            actions["verify"] = {"href": f"{self.hub.url}/verify/{oid}"}
            is_there = oid in self.hub.large_files
            objects.append({"oid": oid, "size": wanted["size"]} | ({} if is_there else {"actions": actions}))
        self._json({"transfer": "basic", "objects": objects})

    def _large(self, oid):
        if self.command == "PUT":
            if hashlib.sha256(self.body).hexdigest() != oid:
                raise _RefusalError(400, message="another checksum")
            self.hub.large_files[oid] = self.body
            self._send()
            return
        data = self.hub.large_files[oid]
        self._send(data, headers={"ETag": f'"{oid}"'})

    def _verify(self, oid):
        if json.loads(self.body) != {"oid": oid, "size": len(self.hub.large_files[oid])}:
            raise _RefusalError(400, message="another size")
        self._json({})

    def _commit(self, name, branch):
        repository = self._repository(name, write=True)
        if branch not in repository.branches:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        files = dict(repository.commits[repository.branches[branch]])
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.large_files[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        sha = repository.commit(branch, files, message)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})


def _blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path, data):
    entry = {"type": "file", "path": path, "size": len(data), "oid": _blob(data)}
    if len(data) >= LFS_FROM:
        sha = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha, "size": len(data), "pointerSize": 134}
    return entry
