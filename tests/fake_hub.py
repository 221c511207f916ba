"""As much of the Hub on loopback as its own client needs to push and pull a data set repository.

Commits, Git LFS uploads, listings and files with ranges, all in memory. No Xet: its client is
switched off by HF_HUB_DISABLE_XET, and falls back to Git LFS.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable

import yaml
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

TOKEN = "hf_token_of_the_tests"
_LARGE = (".tar", ".parquet")


class FakeHub:
    """A hub with no repository yet.

    Attributes:
        url: its endpoint.
        commits: the files of every commit, by name; empty until the repository is made.
        is_private: as it was made.
        requests: method and path of every request.
        uploads: names of blobs that were uploaded.
        fail_after: uploads, after which it takes no more.
    """

    def __init__(self, server: HTTPServer, repo: str) -> None:
        self.url = server.url_for("").rstrip("/")
        self.repo = repo
        self.commits: list[dict[str, bytes]] = []
        self.is_private: bool | None = None
        self.requests: list[str] = []
        self.uploads: list[str] = []
        self.fail_after = 10**6
        self._blobs: dict[str, bytes] = {}
        server.expect_request(re.compile("/")).respond_with_handler(self._answer)

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the last commit."""
        return self.commits[-1]

    def _sha(self, number: int = -1) -> str:
        number = number % len(self.commits)
        return f"{number:040x}"

    def _answer(self, request: Request) -> Response:
        self.requests.append(f"{request.method} {request.path}")
        if (
            request.headers.get("Authorization") != f"Bearer {TOKEN}"
            and "/blobs/" not in request.path
        ):
            return Response("{}", 401)
        routes: dict[str, Callable[..., Response]] = {
            r"/api/repos/create": self._create,
            r"/api/validate-yaml": self._validate,
            rf"/api/datasets/{self.repo}(?:/revision/(.+))?": self._about,
            rf"/api/datasets/{self.repo}/preupload/main": self._preupload,
            rf"/datasets/{self.repo}\.git/info/lfs/objects/batch": self._batch,
            r"/blobs/(\w+)": self._upload,
            rf"/api/datasets/{self.repo}/commit/main": self._commit,
            rf"/api/datasets/{self.repo}/tree/(\w+)/?(.*)": self._tree,
            rf"/datasets/{self.repo}/resolve/(\w+)/(.+)": self._file,
        }
        for pattern, answer in routes.items():
            if found := re.fullmatch(pattern, request.path):
                return answer(request, *found.groups())
        return Response("{}", 404)

    def _create(self, request: Request) -> Response:
        page = {"url": f"{self.url}/datasets/{self.repo}"}
        if self.commits:
            return Response(json.dumps(page), 409, content_type="application/json")
        asked = json.loads(request.data)
        self.is_private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.commits.append({".gitattributes": b"*.tar filter=lfs"})
        return _json(page)

    def _validate(self, request: Request) -> Response:
        front_matter = json.loads(request.data)["content"].split("---\n")[1]
        assert yaml.safe_load(front_matter)["pretty_name"]
        return _json({"errors": [], "warnings": []})

    def _about(self, request: Request, revision: str | None = None) -> Response:
        if not self.commits:
            return Response("{}", 404, headers={"X-Error-Code": "RepoNotFound"})
        number = int(revision, 16) if revision and revision != "main" else -1
        return _json({"id": self.repo, "sha": self._sha(number), "siblings": []})

    def _preupload(self, request: Request) -> Response:
        answers = []
        for file in json.loads(request.data)["files"]:
            mode = "lfs" if file["path"].endswith(_LARGE) else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
        return _json({"files": answers})

    def _batch(self, request: Request) -> Response:
        answers = []
        for wanted in json.loads(request.data)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self._blobs:
                answer["actions"] = {"upload": {"href": f"{self.url}/blobs/{wanted['oid']}"}}
            answers.append(answer)
        return _json({"objects": answers, "transfer": "basic"})

    def _upload(self, request: Request, oid: str) -> Response:
        if len(self.uploads) >= self.fail_after:
            return Response("", 403)
        assert hashlib.sha256(request.data).hexdigest() == oid
        self._blobs[oid] = request.data
        self.uploads.append(oid)
        return Response("")

    def _commit(self, request: Request) -> Response:
        files = dict(self.commits[-1])
        for line in request.data.splitlines():
            operation = json.loads(line)
            kind, value = operation["key"], operation["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self._blobs[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
        self.commits.append(files)
        sha = self._sha()
        return _json(
            {"commitUrl": f"{self.url}/datasets/{self.repo}/commit/{sha}", "commitOid": sha}
        )

    def _at(self, revision: str) -> dict[str, bytes]:
        return self.commits[-1 if revision == "main" else int(revision, 16)]

    def _tree(self, request: Request, revision: str, folder: str) -> Response:
        entries = []
        for name, data in self._at(revision).items():
            if folder and not name.startswith(f"{folder}/"):
                continue
            oid = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            entries.append({"type": "file", "path": name, "size": len(data), "oid": oid})
        return _json(entries)

    def _file(self, request: Request, revision: str, name: str) -> Response:
        files = self._at(revision)
        if name not in files:
            return Response("{}", 404, headers={"X-Error-Code": "EntryNotFound"})
        response = Response(files[name], headers={"ETag": '"0"'})
        length = len(files[name])
        return response.make_conditional(request, accept_ranges=True, complete_length=length)


def _json(value: object) -> Response:
    return Response(json.dumps(value), content_type="application/json")
