"""Files on loopback with ranges: over HTTP, as an S3 bucket, or as a data set on a hub."""

import re
from typing import Any

import fsspec
import orjson
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

HUB_REPO = "someone/pictures"


def serve_files(server: HTTPServer, files: dict[str, bytes]) -> None:
    """Serve files under ``/files/`` and, as a hub does, under the data set's ``resolve/main/``."""

    def serve(request: Request) -> Response:
        name = re.sub(r"^/files/|^/datasets/.*/resolve/main/", "", request.path)
        if name not in files:
            return Response("<Error><Code>NoSuchKey</Code></Error>", 404)
        data = files[name]
        response = Response(data, headers={"ETag": '"0"'})
        return response.make_conditional(request, accept_ranges=True, complete_length=len(data))

    def list_tree(request: Request) -> Response:
        kind = {"type": "file", "oid": "0" * 40}
        tree = [kind | {"path": name, "size": len(data)} for name, data in files.items()]
        return Response(orjson.dumps(tree), content_type="application/json")

    server.expect_request(re.compile("/files/|/datasets/")).respond_with_handler(serve)
    server.expect_request(re.compile("/api/datasets/.*/tree/")).respond_with_handler(list_tree)
    about = {"id": HUB_REPO, "sha": "0" * 40}
    server.expect_request(f"/api/datasets/{HUB_REPO}").respond_with_json(about)


def point_stores_at(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``s3://`` and ``hf://`` lead to the server, by the settings that users have for it."""
    url = server.url_for("").rstrip("/")
    settings: dict[str, dict[str, Any]] = {
        "s3": {"anon": True, "endpoint_url": url},
        "hf": {"endpoint": url, "token": False},
    }
    for scheme, values in settings.items():
        monkeypatch.setitem(fsspec.config.conf, scheme, values)
    forget_stores()


def forget_stores() -> None:
    """Let every store be looked for anew, by what the settings say now."""
    for kind in fsspec.registry.values():
        kind.clear_instance_cache()
