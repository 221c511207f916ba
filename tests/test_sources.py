"""The whole of fetch, from every kind of source: a server on loopback, or real files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline import pacing
from pipeline.pacing import SourceDownError, SourceRefusesError
from pipeline.recipe import Recipe, SelectSettings, SourceSettings, SplitSettings
from pipeline.run import fetch
from pipeline.shard import list_shards
from pipeline.work import Work
from tests.faulty_server import FaultyServer, answer
from tests.metadata_records import lines_of, make_post, new_record
from tests.pictures import draw_picture, encoded

QUIET = Console(quiet=True)
PICTURE = encoded(draw_picture(1, 90, 90), "jpeg")


def recipe_of(metadata: Path | str, images: str, **source: Any) -> Recipe:
    """A recipe for posts with the tag solo, in shards of about ten."""
    settings: dict[str, Any] = {"rate": 0, "attempts": 1, "layout": "original", **source}
    return Recipe(
        name="test",
        select=SelectSettings(tags=("solo",)),
        source=SourceSettings(metadata=str(metadata), images=images, **settings),
        split=SplitSettings(shard_size=10),
    )


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Forty posts as JSON lines."""
    path = tmp_path / "posts.json"
    path.write_bytes(lines_of([new_record(make_post(i, "solo")) for i in range(1, 41)]))
    return path


def test_one_client_serves_shard_after_shard(lines: Path, tmp_path: Path) -> None:
    work = Work(tmp_path / "work")
    with FaultyServer(answer(200, PICTURE)) as server:
        recipe = recipe_of(lines, f"{server.url}/{{id}}.jpg", connections=2)
        assert fetch(recipe, work, QUIET).fates == {"fetched": 40}
        assert len(list_shards(work.raw_dir)) > 3
        assert server.num_connections <= 2


@pytest.mark.parametrize("num_workers", [1, 2])
def test_refusals_are_counted_from_shard_to_shard(
    lines: Path, tmp_path: Path, num_workers: int
) -> None:
    recipe = recipe_of(lines, "", connections=num_workers)
    recipe = replace(recipe, split=SplitSettings(shard_size=2))
    with FaultyServer(answer(403)) as server:
        source = replace(recipe.source, images=f"{server.url}/{{id}}.jpg")
        with pytest.raises(SourceRefusesError, match="refused 5 requests in a row"):
            fetch(
                replace(recipe, source=source),
                Work(tmp_path / "work"),
                QUIET,
                num_workers=num_workers,
            )
        assert len(server.requests) <= 5 * num_workers + 1


def test_a_dead_host_stops_the_run_and_the_next_run_goes_on(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "_MAX_MISSES", 1)
    work = Work(tmp_path / "work")
    server = FaultyServer(answer(200, PICTURE))
    recipe = recipe_of(lines, f"{server.url}/{{id}}.jpg")
    with server:
        pass
    with pytest.raises(SourceDownError, match=rf"^{server.host} is out of reach"):
        fetch(recipe, work, QUIET)
    with FaultyServer(answer(200, PICTURE), port=server.port):
        assert fetch(recipe, work, QUIET).fates == {"fetched": 40}
