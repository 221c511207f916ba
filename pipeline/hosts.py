"""Which hosts may be asked: those that the user named, and no other."""

import contextlib
import ipaddress
from urllib.parse import urlsplit

from pipeline.errors import UserError
from pipeline.recipe import SourceSettings
from pipeline.transport import host_of, prepare_get


def template_host(template: str) -> str:
    """Return the ``host`` or ``host:port`` that a template of pictures names; "" where none.

    Raises:
        UserError: on a URL whose host cannot be read, or holds a placeholder.
    """
    if not template.startswith(("http://", "https://")):
        return ""
    try:
        host = host_of(prepare_get(template, {}))
    except ValueError as error:
        raise UserError(f"source.images {template!r}: no host can be read: {error}.") from error
    if "{" in template.split("/")[2]:
        raise UserError(f"source.images {template!r}: the host must be spelled out.")
    return host


def allowed_hosts(source: SourceSettings) -> frozenset[str]:
    """Return the hosts that may be asked: those of ``source.hosts``, and the template's own.

    Each is ``host``, meaning its ports 80 and 443, or ``host:port``. A path on disk has none.

    Raises:
        UserError: on an entry that is no host, and when ``{file_url}`` leaves the choice of hosts
            to the records and ``source.hosts`` is empty.
    """
    named = {canonical_host(entry) for entry in source.hosts}
    hosts = named | {template_host(source.images)} - {""}
    if not hosts and source.images.startswith("{file_url}"):
        raise UserError(
            "source.hosts is empty, and {file_url} may point anywhere: list the hosts that may be "
            "asked, such as cdn.donmai.us."
        )
    return frozenset(hosts)


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
