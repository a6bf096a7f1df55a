"""A small Hub: what the real client of `huggingface_hub` calls to make a repository, commit to it and load from it."""

import base64
import hashlib
import json
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "t0kenOfTheTests" * 3
LFS_SUFFIXES = (".safetensors", ".bin", ".model")


class Repository:
    """Commits of a repository: each is name -> content."""

    def __init__(self, private):
        self.private = private
        self.commits = []
        self.messages = []
        self.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, "initial commit")

    def commit(self, files, message):
        digest = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits.append((digest, files))
        self.messages.append(message)
        return digest

    @property
    def head(self):
        return self.commits[-1]

    def at(self, revision):
        if revision == "main":
            return self.head
        return next((commit for commit in self.commits if commit[0] == revision), None)


class Hub:
    """
    The state of the server.

    `failures` maps a repository's name to the part of a path and what is answered there: a status, or `"drop"`.
    """

    def __init__(self, user="me", role="write"):
        self.user, self.role = user, role
        self.repositories, self.objects, self.failures, self.requests = {}, {}, {}, []
        self.url = None


@contextmanager
def running_hub(**facts):
    """A server on a free port; yields its [`Hub`]."""
    hub = Hub(**facts)

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state = None

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._answer("GET")

    def do_HEAD(self):
        self._answer("HEAD")

    def do_POST(self):
        self._answer("POST")

    def do_PUT(self):
        self._answer("PUT")

    # ---- One request ----

    def _answer(self, method):
        body = self._body()
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append((method, path))
        if self._fails(path, body):
            return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.known = token == TOKEN
        routes = {
            ("GET", r"/api/whoami-v2"): self._whoami,
            ("POST", r"/api/repos/create"): self._create,
            ("POST", r"/api/validate-yaml"): self._validate,
            ("GET", r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?"): self._info,
            ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?"): self._tree,
            ("POST", r"/api/models/([^/]+/[^/]+)/preupload/(.+)"): self._preupload,
            ("POST", r"/api/models/([^/]+/[^/]+)/commit/(.+)"): self._commit,
            ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch"): self._batch,
            ("PUT", r"/lfs/(\w+)"): self._store,
            ("POST", r"/lfs/(\w+)/verify"): self._verify,
            ("GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)"): self._file,
            ("HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)"): self._file,
        }
        for (wanted, pattern), action in routes.items():
            match = re.fullmatch(pattern, path)
            if wanted == method and match:
                return action(*match.groups(), body=body)
        return self._error(404, f"no such route: {method} {path}")

    def _body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _fails(self, path, body):
        for name, (part, what) in self.state.failures.items():
            if part not in path or (name not in path and name.encode() not in body and part != "whoami"):
                continue
            if what == "drop":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            else:
                # A server may repeat what it was sent.
                self._error(what, f"refused with {self.headers.get('Authorization')}")
            return True
        return False

    def _send(self, content, status=200, headers=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _error(self, status, message, code=None):
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._send({"error": message}, status, headers)

    def _repository(self, name, write=False):
        """The repository, if the one who asks may see it; else the answer is given."""
        if write and not self.known:
            return self._error(401, "Invalid credentials in Authorization header")
        found = self.state.repositories.get(name)
        if found is None or (found.private and not self.known):
            return self._error(404, "Repository not found", "RepoNotFound")
        return found

    # ---- Routes ----

    def _whoami(self, body):
        if not self.known:
            return self._error(401, "Invalid credentials in Authorization header")
        auth = {"accessToken": {"displayName": "tests", "role": self.state.role}}
        return self._send({"type": "user", "name": self.state.user, "orgs": [{"name": "team"}], "auth": auth})

    def _create(self, body):
        if not self.known:
            return self._error(401, "Invalid credentials in Authorization header")
        asked = json.loads(body)
        name = f"{asked.get('organization') or self.state.user}/{asked['name']}"
        url = {"url": f"{self.state.url}/{name}", "name": name}
        if name in self.state.repositories:
            return self._send({**url, "error": "You already created this model repo"}, 409)
        self.state.repositories[name] = Repository(asked.get("visibility") == "private")
        return self._send(url)

    def _validate(self, body):
        content = json.loads(body)["content"]
        missing = [] if content.startswith("---\n") else [{"message": "empty or missing yaml metadata in repo card"}]
        return self._send({"errors": [], "warnings": missing})

    def _info(self, name, revision, body):
        repository = self._repository(name)
        if repository is not None:
            digest, files = repository.at(revision or "main")
            siblings = [{"rfilename": file} for file in files]
            facts = {"_id": "0", "id": name, "modelId": name, "sha": digest, "private": repository.private, "tags": []}
            self._send({**facts, "siblings": siblings, "downloads": 0, "likes": 0})

    def _tree(self, name, revision, folder, body):
        repository = self._repository(name)
        if repository is not None:
            _, files = repository.at(revision)
            if folder:
                return self._error(404, "no such folder", "EntryNotFound")
            entries = [
                {"type": "file", "oid": _git_hash(data), "size": len(data), "path": file}
                for file, data in files.items()
            ]
            self._send(entries)

    def _preupload(self, name, revision, body):
        repository = self._repository(name, write=True)
        if repository is not None:
            _, files = repository.head
            answers = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                    "oid": _oid(file["path"], files[file["path"]]) if file["path"] in files else None,
                }
                for file in json.loads(body)["files"]
            ]
            self._send({"files": answers})

    def _batch(self, name, body):
        if self._repository(name, write=True) is not None:
            objects = []
            for wanted in json.loads(body)["objects"]:
                href = f"{self.state.url}/lfs/{wanted['oid']}"
                actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
                there = wanted["oid"] in self.state.objects
                objects.append({**wanted, **({} if there else {"actions": actions})})
            self._send({"transfer": "basic", "objects": objects})

    def _store(self, oid, body):
        if hashlib.sha256(body).hexdigest() != oid:
            return self._error(400, "the content is not that of its name")
        self.state.objects[oid] = body
        return self._send(b"")

    def _verify(self, oid, body):
        return self._send({}) if oid in self.state.objects else self._error(404, "no such object")

    def _commit(self, name, revision, body):
        repository = self._repository(name, write=True)
        if repository is None:
            return
        files, message = dict(repository.head[1]), None
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.state.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
            else:
                return self._error(400, f"unknown operation {item['key']}")
        digest = repository.commit(files, message)
        self._send({"success": True, "commitOid": digest, "commitUrl": f"{self.state.url}/{name}/commit/{digest}"})

    def _file(self, name, revision, file, body):
        repository = self._repository(name)
        if repository is None:
            return
        commit = repository.at(revision)
        if commit is None:
            return self._error(404, "no such revision", "RevisionNotFound")
        digest, files = commit
        headers = {"X-Repo-Commit": digest}
        if file not in files:
            headers.update({"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return self._send({"error": "Entry not found"}, 404, headers)
        headers["ETag"] = f'"{_oid(file, files[file])}"'
        return self._send(files[file], headers=headers)


def _oid(name, content):
    return hashlib.sha256(content).hexdigest() if name.endswith(LFS_SUFFIXES) else _git_hash(content)


def _git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
