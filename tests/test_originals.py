import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.pictures.image import decode
from pipeline.pictures.letterbox import find_letterbox
from pipeline.recipe import SourceSettings
from pipeline.stages.originals import (
    check_source,
    check_template,
    expand_template,
    inspect,
    open_source,
)
from pipeline.web.client import Client
from tests.indexed_tars import index_tar, pack
from tests.pictures import draw_picture, encoded, letterboxed

POST = {
    "post_id": 1234567,
    "ext": "png",
    "md5": "a" * 32,
    "file_url": "https://cdn.example/a.png",
    "width": 400,
    "height": 200,
}
SOURCE = SourceSettings(images="")
FILE_URLS = SourceSettings(images="{file_url}", layout="original", hosts=("a",))


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ("512px/{bucket}/{id}.jpg", "512px/0567/1234567.jpg"),
        ("https://h/{md5}.{ext}", f"https://h/{'a' * 32}.png"),
        ("{file_url}", "https://cdn.example/a.png"),
    ],
)
def test_templates_name_a_posts_picture(template: str, place: str) -> None:
    check_template(template)
    assert expand_template(template, POST) == place


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{idd}.jpg", "{idd}"),
        ("a.jpg", "needs {id}"),
        ("", "needs {id}"),
        ("/data/{file_url}", "stands alone"),
        ("images/{id}.tar#{bucket}.jpg", "needs {id}"),
        ("ftp://a.org/{id}", "cannot be read from; possible: a plain path, http://"),
        ("simplecache::s3://bucket/{id}", "a chain of file systems"),
        ("s3:///{id}.jpg", "names no bucket"),
        ("s3:///all.tar#{id}.jpg", "names no bucket"),
    ],
)
def test_templates_that_name_none_are_refused(template: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_template(template)


def test_what_the_record_hides_has_no_place() -> None:
    assert expand_template("{md5}.{ext}", {**POST, "md5": ""}) == ""


@pytest.mark.parametrize("value", ["{md5}", "../../x", "jpg/../../x", "", "a::b", "x\0", "jpg\n"])
@pytest.mark.parametrize("field", ["ext", "md5"])
def test_no_record_leads_out_of_the_template(field: str, value: str) -> None:
    assert expand_template(f"/data/{{id}}.{{{field}}}", {**POST, field: value}) == ""


def test_file_urls_need_the_layout_of_originals() -> None:
    source = SourceSettings(images="{file_url}", hosts=("a.org",))
    with pytest.raises(UserError, match="source.layout=original"):
        check_source(source)
    check_source(replace(source, layout="original"))


@pytest.mark.parametrize("template", ["{md5}.jpg", "{md5}.tar#{id}.jpg", "{bucket}.tar#{md5}.jpg"])
def test_nothing_is_read_for_a_post_whose_record_hides_its_picture(
    template: str, tmp_path: Path
) -> None:
    for name in ("0567.tar", ".tar", ".jpg"):
        (tmp_path / name).write_bytes(b"x")
    source = replace(SOURCE, images=f"{tmp_path}/{template}")
    get = open_source(Client(source, frozenset()), source)
    assert str(get(POST | {"md5": ""}).fate) == "missing/no_url"


def test_originals_come_from_disk(tmp_path: Path) -> None:
    source = replace(SOURCE, images=f"{tmp_path}/{{id}}.jpg", max_bytes=100)
    get = open_source(Client(source, frozenset()), source)

    def fate() -> str:
        return str(get(POST).fate)

    assert fate() == "missing/no_file"
    path = tmp_path / "1234567.jpg"
    path.write_bytes(b"")
    assert fate() == "rejected/empty"
    path.write_bytes(b"x" * 100)
    assert get(POST).content == b"x" * 100
    path.write_bytes(b"x" * 101)
    assert fate() == "rejected/too_many_bytes"
    path.unlink()
    path.mkdir()
    assert fate() == "failed/io"


def test_an_original_is_looked_at() -> None:
    picture = draw_picture(1, 200, 400)
    data = encoded(letterboxed(picture), "jpeg", quality=92)
    found = inspect(POST, data, SOURCE)
    assert (found["status"], found["format"], found["key"]) == ("fetched", "jpeg", "001234567")
    assert (found["file_width"], found["file_height"]) == (512, 512)
    assert (found["content_width"], found["content_height"]) == (512, 256)
    plain = inspect(POST, encoded(picture, "png"), replace(SOURCE, layout="original"))
    distance = (plain["perceptual_hash"] ^ found["perceptual_hash"]).bit_count()
    assert distance <= 4  # the same picture, with and without its letterbox
    assert len(found["thumbnail"]) == 192


def content_size(data: bytes) -> tuple[int, int]:
    found = inspect(POST, data, replace(SOURCE, layout="original"))
    return found["content_width"], found["content_height"]


@pytest.mark.parametrize("format_name", ["jpeg", "png", "webp"])
@pytest.mark.parametrize(
    ("width", "height"),
    [(400, 255), (255, 400), (512, 200), (1024, 400), (300, 600), (513, 513), (129, 130)],
)
def test_the_content_of_an_original_is_as_large_as_it_is_shown(
    width: int, height: int, format_name: str
) -> None:
    picture = draw_picture(1, height, width)
    assert content_size(encoded(picture, format_name)) == (width, height)
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        shown = (width, height) if orientation < 5 else (height, width)
        assert content_size(encoded(picture, format_name, exif=exif)) == shown


@pytest.mark.parametrize("inner", range(250, 262))
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_the_content_inside_a_letterbox_is_measured_as_prepare_measures_it(
    inner: int, turned: bool, known: bool
) -> None:
    picture = draw_picture(1, 512, inner) if turned else draw_picture(1, inner, 512)
    data = encoded(letterboxed(picture, 512), "jpeg", quality=92)
    width, height = (picture.shape[1] * 3, picture.shape[0] * 3) if known else (0, 0)
    found = inspect(POST | {"width": width, "height": height}, data, SOURCE)
    box, _ = find_letterbox(decode(data), width, height)
    assert (found["content_width"], found["content_height"]) == (box.width, box.height)


@pytest.mark.parametrize(
    ("data", "source", "reason"),
    [
        (b"<html>busy</html>", SOURCE, "not_an_image"),
        (encoded(draw_picture(1)), replace(SOURCE, max_pixels=120 * 119), "too_many_pixels"),
        (encoded(draw_picture(1)), replace(SOURCE, check_md5=True), "hash_mismatch"),
        (encoded(draw_picture(1)), FILE_URLS, "hash_mismatch"),
    ],
)
def test_what_is_not_usable_is_rejected(data: bytes, source: SourceSettings, reason: str) -> None:
    assert inspect(POST, data, source) == {"status": "rejected", "reason": reason}


def test_a_damaged_picture_is_fetched_all_the_same() -> None:
    data = encoded(draw_picture(2, 300, 300))
    found = inspect(POST, data[: len(data) // 2], SOURCE)
    assert found["status"] == "fetched"
    assert "perceptual_hash" not in found


@pytest.mark.parametrize("template", ["{}/512px/{{bucket}}/{{id}}.jpg", "file://{}/p{{id}}.jpg"])
def test_a_disk_that_is_not_there_settles_no_post_as_missing(template: str, tmp_path: Path) -> None:
    place = tmp_path / "mirror"
    source = replace(SOURCE, images=template.format(place))
    with pytest.raises(UserError, match="mirror.*: no such folder on .*; is --images right"):
        open_source(Client(source, []), source)
    (place / "512px").mkdir(parents=True)
    download = open_source(Client(source, []), source)(POST)
    assert str(download.fate) == "missing/no_file"


def test_a_member_of_a_tar_may_lie_in_a_folder_there(tmp_path: Path) -> None:
    tar = pack({"pictures/1234567.png": b"a picture"})
    (tmp_path / "all.tar").write_bytes(tar)
    (tmp_path / "all.json").write_bytes(orjson.dumps(index_tar(tar)))
    source = replace(SOURCE, images=f"{tmp_path}/all.tar#pictures/{{id}}.{{ext}}")
    assert open_source(Client(source, []), source)(POST).content == b"a picture"


def test_a_folder_that_may_not_be_entered_fails_no_post(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, real = tmp_path / "mirror", os.stat
    place.mkdir()
    source = replace(SOURCE, images=f"{place}/{{id}}.jpg")

    def stat(path: Any, **options: Any) -> os.stat_result:
        """Refuse what lies within, as the system does unless root asks."""
        if str(path).startswith(f"{place}/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, **options)

    monkeypatch.setattr("os.stat", stat)
    with pytest.raises(UserError, match="mirror: permission denied on .*; is --images right"):
        open_source(Client(source, []), source)
    monkeypatch.undo()
    open_source(Client(source, []), source)
