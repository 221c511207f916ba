"""A small Danbooru on loopback: searches its posts, gives them by the page, serves originals."""

import hashlib
from pathlib import Path
from typing import Any

import orjson
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from pipeline.metadata.listing import Listing, make_listing
from pipeline.recipe import Recipe, SelectSettings, SourceSettings, SplitSettings
from tests.faulty_server import Script, answer
from tests.pictures import draw_picture, encoded

SELECT = SelectSettings(snapshot=2026, tags=("solo", "white_background", "smile"))


def original_of(post_id: int) -> bytes:
    """Return a picture that no other post has."""
    return encoded(draw_picture(post_id, 60, 80), "jpeg")


class FakeDanbooru:
    """Answers ``/posts.json`` and ``/original/ID.jpg`` on a server.

    Attributes:
        records: what it holds; any may be changed.
        queries: the search of every page that was asked for.
        headers: of every request, by its path.
    """

    def __init__(self, server: HTTPServer, num_posts: int) -> None:
        self._server = server
        self.url = server.url_for("/posts.json")
        self.records = {post_id: self._record(post_id) for post_id in range(1, num_posts + 1)}
        self.queries: list[dict[str, str]] = []
        self.headers: list[tuple[str, dict[str, str]]] = []
        server.expect_request("/posts.json").respond_with_handler(self._search)
        for post_id in self.records:
            path = f"/original/{post_id}.jpg"
            server.expect_request(path).respond_with_handler(self._serve)

    def _record(self, post_id: int) -> dict[str, Any]:
        return {
            "id": post_id,
            "created_at": "2026-03-17T03:50:48.762-04:00",
            "rating": "g",
            "md5": hashlib.md5(original_of(post_id), usedforsecurity=False).hexdigest(),
            "file_ext": "jpg",
            "image_width": 80,
            "image_height": 60,
            "file_size": len(original_of(post_id)),
            "parent_id": None,
            "is_deleted": False,
            "is_banned": False,
            "tag_string": "solo white_background smile",
            "tag_string_character": "",
            "file_url": self._server.url_for(f"/original/{post_id}.jpg"),
        }

    def _search(self, request: Request) -> Response:
        self.headers.append((request.path, dict(request.headers)))
        self.queries.append(dict(request.args))
        words = request.args["tags"].split()
        before = int(request.args.get("page", f"b{10**9}").removeprefix("b"))
        found = [r for r in self.records.values() if r["id"] < before and _matches(r, words)]
        found = sorted(found, key=lambda r: -int(r["id"]))[: int(request.args["limit"])]
        return Response(orjson.dumps(found), content_type="application/json")

    def _serve(self, request: Request) -> Response:
        self.headers.append((request.path, dict(request.headers)))
        return Response(original_of(int(request.path.split("/")[2].removesuffix(".jpg"))))


def _matches(record: dict[str, Any], words: list[str]) -> bool:
    ratings = [w.removeprefix("rating:").split(",") for w in words if w.startswith("rating:")]
    tags = {word for word in words if not word.startswith("rating:")}
    return tags <= set(record["tag_string"].split()) and all(record["rating"] in r for r in ratings)


def recipe_for(url: str, **source: Any) -> Recipe:
    settings: dict[str, Any] = {
        "rate": 0,
        "api_rate": 0,
        "attempts": 1,
        "timeout": 1.0,
        "layout": "original",
        **source,
    }
    return Recipe(
        name="live",
        select=SELECT,
        source=SourceSettings(metadata=url, images="{file_url}", **settings),
        split=SplitSettings(shard_size=10),
    )


def listing_of(url: str, tmp_path: Path, **source: Any) -> Listing:
    return make_listing(recipe_for(url, **source).source, SELECT, tmp_path / "listing")


def page_of(*ids: int) -> Script:
    records = [{"id": i, "rating": "g", "tag_string": "solo", "file_ext": "jpg"} for i in ids]
    return answer(200, orjson.dumps(records))
