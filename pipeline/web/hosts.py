"""Which hosts may be asked: those that the user named, and no other."""

import contextlib
import ipaddress
from urllib.parse import urlsplit

from pipeline.errors import UserError
from pipeline.recipe import SourceSettings
from pipeline.urls import is_http
from pipeline.web.transport import host_of, prepare_get


def url_host(url: str, what: str = "source.images") -> str:
    """Return the ``host`` or ``host:port`` that a URL, or template of one, names; "" for a path.

    Args:
        url: or a path.
        what: where it was given, for the error's text.

    Raises:
        UserError: on a URL whose host cannot be read, or holds a placeholder.
    """
    if not is_http(url):
        return ""
    try:
        host = host_of(prepare_get(url, {}))
    except ValueError as error:
        raise UserError(f"{what} {url!r}: no host can be read: {error}.") from error
    if "{" in url.split("/")[2]:
        raise UserError(f"{what} {url!r}: the host must be spelled out.")
    return host


def named_hosts(source: SourceSettings) -> frozenset[str]:
    """Return the hosts that the source's pictures and metadata name; they may be anywhere.

    Raises:
        UserError: where one cannot be read.
    """
    hosts = {url_host(source.images), url_host(source.metadata, "source.metadata")}
    return frozenset(hosts - {""})


def allowed_hosts(source: SourceSettings) -> frozenset[str]:
    """Return the hosts that may be asked for pictures.

    They are those of ``source.hosts``, each ``host``, meaning its ports 80 and 443, or
    ``host:port``; the template's own; and with ``{file_url}``, which leaves the choice to the
    records, the host of the API that gave them, with ``cdn.donmai.us`` for Danbooru's own. A path
    on disk has none.

    Raises:
        UserError: on an entry that is no host, and when ``{file_url}`` leaves the choice of hosts
            to the records and nothing says which may be asked.
    """
    hosts = {canonical_host(entry) for entry in source.hosts} | {url_host(source.images)}
    if source.images == "{file_url}":
        api = url_host(source.metadata, "source.metadata")
        hosts |= {api, "cdn.donmai.us"} if is_danbooru(api) else {api}
        if not hosts - {""}:
            raise UserError(
                "source.hosts is empty, and {file_url} may point anywhere: list the hosts that "
                "may be asked, such as cdn.donmai.us."
            )
    return frozenset(hosts - {""})


def is_danbooru(host: str) -> bool:
    """Whether a host is Danbooru's own."""
    return f".{host}".endswith(".donmai.us")


def canonical_host(entry: str) -> str:
    """Return a host as ``transport.host_of`` writes it.

    Raises:
        UserError: on an entry that is none.
    """
    with contextlib.suppress(ValueError):
        if not set(entry) & set("/\\?#@{}"):
            return host_of(prepare_get(f"http://{entry}", {}))
    raise UserError(f"source.hosts: {entry!r} is no host; write host or host:port.")


def is_local(host: str) -> bool:
    """Whether a host is named as an address, or as ``localhost``: it is where the user says."""
    name = urlsplit(f"//{host}").hostname or ""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(name))
    return name == "localhost"
