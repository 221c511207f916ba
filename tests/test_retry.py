"""fetch --retry-failed and --replan on the command line, after something was mended."""

import json
import re
import shlex
import socket
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from pipeline.errors import UserError
from tests.calls import call
from tests.crashing import make_source
from tests.metadata_records import lines_of, make_post, new_record
from tests.pictures import draw_picture, encoded


def test_a_dry_run_counts_what_would_be_asked_for(tmp_path: Path) -> None:
    make_source(tmp_path)
    odd = tmp_path / "original" / "2.jpg"
    odd.unlink()
    odd.mkdir()  # which cannot be read
    (tmp_path / "original" / "3.jpg").unlink()
    command = ["fetch", f"{tmp_path}/recipe.toml", "--work", f"{tmp_path}/w", "--workers", "1"]

    def count(*options: str) -> str:
        return call(*command, "--dry-run", *options).stdout.splitlines()[-1]

    assert count() == "6 originals would be fetched."
    call(*command, "--limit", "4")
    assert count() == "2 originals would be fetched."
    assert count("--limit", "4") == "0 originals would be fetched."
    assert count("--limit", "4", "--retry-failed") == "2 originals would be fetched."
    other = ("--set", "source.max_bytes=100000")
    assert count("--limit", "4", *other) == "1 original would be fetched."
    assert count("--limit", "4", *other, "--retry-failed") == "2 originals would be fetched."
    moved = ("--images", f"{tmp_path}/moved/{{id}}.jpg")
    assert count("--limit", "4", *moved) == "4 originals would be fetched."
    wrong = call(*command, "--dry-run", "--images", f"{tmp_path}/{{ib}}.jpg")
    assert isinstance(wrong.exception, UserError)
    assert "no field {ib} (did you mean '{id}'?)" in str(wrong.exception)


def test_a_template_that_leads_to_no_picture_is_doubted(tmp_path: Path) -> None:
    make_source(tmp_path)
    command = ["fetch", f"{tmp_path}/recipe.toml", "--work", f"{tmp_path}/w", "--workers", "1"]
    wrong = call(*command, "--images", f"{tmp_path}/original/{{id}}.jpgg")
    assert wrong.exit_code == 0
    said = (
        f"no picture is there: does {tmp_path}/original/{{id}}.jpgg name them as they are called?"
    )
    assert said in wrong.stderr
    assert "no picture is there" not in call(*command).stderr


def test_a_host_that_is_named_later_is_asked(tmp_path: Path, httpserver: HTTPServer) -> None:
    metadata, recipe = tmp_path / "posts.json", tmp_path / "recipe.toml"
    metadata.write_bytes(lines_of([new_record(make_post(i, "solo")) for i in (1, 2, 3)]))
    images = httpserver.url_for("/{id}.jpg")
    recipe.write_text(f'source = {{images = "{images}", rate = 0}}\nselect.tags = ["solo"]\n')
    command = ["fetch", str(recipe), "--metadata", str(metadata), "--work", f"{tmp_path}/w"]
    command += ["--workers", "1"]
    with HTTPServer(host="127.0.0.1", port=0) as cdn:
        cdn.expect_request(re.compile("/")).respond_with_data(encoded(draw_picture(1, 90, 90)))
        where = {"Location": cdn.url_for("/x.png")}
        httpserver.expect_request(re.compile("/")).respond_with_data(status=302, headers=where)
        refused = call(*command)
        assert "3  refused/host_not_allowed" in refused.stdout
        setting = f'source.hosts=["127.0.0.1:{cdn.port}"]'
        assert refused.stderr == (
            f"3 posts lead to a host that may not be asked: 127.0.0.1:{cdn.port}. To have posts "
            f"from there: --set '{setting}' --retry-failed.\n"
        )
        assert call(*command).stderr == refused.stderr  # of shards that are done as well
        named = ["--set", setting]
        still = call(*command, *named)
        assert "3  refused/host_not_allowed" in still.stdout
        assert f"to 127.0.0.1:{cdn.port}, now named: --retry-failed asks again." in still.stderr
        mended = call(*command, *named, "--retry-failed")
        assert ("3  fetched" in mended.stdout, mended.stderr) == (True, "")


def test_hosts_that_may_not_be_asked_are_named(tmp_path: Path) -> None:
    """A few of those that records name, in what a shell takes as one word, and after other runs."""
    hosts = [f"{letter}.example" for letter in "fedcba"] + ["a'$(x).example:81", "no url"]
    records = [
        {"id": i, "rating": "s", "file_ext": "png", "file_url": f"http://{host}/{i}.png"}
        for i, host in enumerate(hosts, start=1)
    ]
    metadata, recipe = tmp_path / "posts.json", tmp_path / "recipe.toml"
    metadata.write_text("\n".join(map(json.dumps, records)))
    recipe.write_text(
        "source = {images = '{file_url}', layout = 'original', hosts = ['z.example'], rate = 0}"
    )
    command = ["fetch", str(recipe), "--metadata", str(metadata), "--work", f"{tmp_path}/w"]
    command += ["--workers", "1"]
    call(*command, "--limit", "4")
    said = call(*command, "--replan").stderr
    shown = ["a'$(x).example:81", "a.example", "b.example", "c.example", "d.example"]
    assert f"hosts that may not be asked: {', '.join(shown)} and more. To have" in said
    option, setting, *_ = shlex.split(said[said.index("--set") :])
    assert option == "--set"
    assert json.loads(setting.removeprefix("source.hosts=")) == ["z.example", *shown]
    prepared = call("prepare", recipe, "--work", tmp_path / "w", "--workers", 1)
    assert (prepared.exit_code, prepared.stderr) == (0, "")  # where nothing is asked for


def test_a_name_that_leads_to_a_private_address_is_said_to(
    tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(host: str, port: int, *rest: object, **options: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", find)
    where = f"inside.example:{httpserver.port}"
    metadata, recipe = tmp_path / "posts.json", tmp_path / "recipe.toml"
    record = {"id": 1, "rating": "s", "file_ext": "png", "file_url": f"http://{where}/1.png"}
    metadata.write_text(json.dumps(record))
    recipe.write_text(
        f"source = {{images = '{{file_url}}', layout = 'original', hosts = ['{where}'], rate = 0}}"
    )
    told = call("fetch", recipe, "--metadata", metadata, "--work", tmp_path / "w", "--workers", 1)
    assert told.stderr == (
        f"1 post leads to {where}, now named: --retry-failed asks again. A name that leads to a "
        "private address is asked only where --images or --metadata has it.\n"
    )
    assert httpserver.log == []


def test_a_post_is_asked_for_once_its_record_names_a_url(
    tmp_path: Path, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/1.png").respond_with_data(encoded(draw_picture(1, 90, 90)))
    metadata, recipe = tmp_path / "posts.json", tmp_path / "recipe.toml"
    hosts = f"['localhost:{httpserver.port}']"
    recipe.write_text(
        f"source = {{images = '{{file_url}}', layout = 'original', hosts = {hosts}, rate = 0}}"
    )
    command = ["fetch", str(recipe), "--metadata", str(metadata), "--work", f"{tmp_path}/w"]
    command += ["--workers", "1", "--replan"]
    record = {"id": 1, "rating": "s", "file_ext": "png"}
    metadata.write_text(json.dumps(record))
    assert "1  missing/no_url" in call(*command).stdout
    dry_run = [*command, "--dry-run"]
    assert "\n0 originals would be fetched." in call(*dry_run).stdout
    metadata.write_text(json.dumps(record | {"file_url": httpserver.url_for("/1.png")}))
    assert "\n1 original would be fetched." in call(*dry_run).stdout
    assert "1  fetched" in call(*command).stdout
