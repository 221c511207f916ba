import pytest

from pipeline.errors import UserError
from pipeline.recipe import SourceSettings
from pipeline.web.hosts import allowed_hosts, named_hosts, url_host


@pytest.mark.parametrize(
    ("template", "host"),
    [
        ("https://example.org/{bucket}/{id}.{ext}", "example.org"),
        ("https://EXAMPLE.org:443/{id}", "example.org"),
        ("http://example.org:8000/{id}", "example.org:8000"),
        ("http://me:secret@example.org/{id}", "example.org"),
        ("http://[::1]:8000/{id}", "[::1]:8000"),
        ("https://塗り絵.jp/{id}", "xn--nbk211jrwy.jp"),
        ("/data/512px/{bucket}/{id}.jpg", ""),
        ("{file_url}", ""),
    ],
)
def test_a_template_names_its_host(template: str, host: str) -> None:
    assert url_host(template) == host


@pytest.mark.parametrize("template", ["http://{md5}.org/{id}", "http://x:{id}/", "https:///{id}"])
def test_a_template_without_a_readable_host_is_an_error(template: str) -> None:
    with pytest.raises(UserError, match=r"source\.images"):
        url_host(template)
    source = SourceSettings(metadata=template, images="{file_url}")
    for hosts_of in (named_hosts, allowed_hosts):
        with pytest.raises(UserError, match=r"source\.metadata"):
            hosts_of(source)


@pytest.mark.parametrize(
    ("images", "hosts", "allowed"),
    [
        ("https://a.org/{id}", (), {"a.org"}),
        ("https://a.org/{id}", ("B.org", "c.org:8080"), {"a.org", "b.org", "c.org:8080"}),
        ("{file_url}", ("cdn.donmai.us",), {"cdn.donmai.us"}),
        ("/data/{id}.jpg", (), set()),
    ],
)
def test_the_allowed_hosts(images: str, hosts: tuple[str, ...], allowed: set[str]) -> None:
    assert allowed_hosts(SourceSettings(images=images, hosts=hosts)) == allowed


@pytest.mark.parametrize(
    "entry",
    [
        *("https://a.org", "a.org/x", "a.org?x", "a.org#x", "a.org\\x", "a{id}.org"),
        *("*.a.org", "", "a b", "a@b", "a:b"),
    ],
)
def test_an_entry_that_is_no_host_is_an_error(entry: str) -> None:
    with pytest.raises(UserError, match=r"source\.hosts"):
        allowed_hosts(SourceSettings(images="https://a.org/{id}", hosts=(entry,)))


def test_file_urls_need_a_list_of_hosts() -> None:
    with pytest.raises(UserError, match=r"source\.hosts is empty"):
        allowed_hosts(SourceSettings(images="{file_url}"))


@pytest.mark.parametrize(
    ("metadata", "hosts", "allowed"),
    [
        (
            "https://danbooru.donmai.us/posts.json",
            (),
            {"danbooru.donmai.us", "cdn.donmai.us"},
        ),
        ("https://donmai.us/posts.json", (), {"donmai.us", "cdn.donmai.us"}),
        ("https://evildonmai.us/posts.json", (), {"evildonmai.us"}),
        ("http://booru.lan:3000/posts.json", ("a.org",), {"booru.lan:3000", "a.org"}),
    ],
)
def test_an_api_implies_where_its_pictures_lie(
    metadata: str, hosts: tuple[str, ...], allowed: set[str]
) -> None:
    source = SourceSettings(metadata=metadata, images="{file_url}", hosts=hosts)
    assert allowed_hosts(source) == allowed
    elsewhere = SourceSettings(metadata=metadata, images="https://a.org/{id}")
    assert allowed_hosts(elsewhere) == {"a.org"}
    assert url_host(metadata) in named_hosts(source)
