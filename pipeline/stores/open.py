"""Where a shared data set lies: a folder, any store of fsspec's, a web server, or the Hub."""

import os
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from pipeline.errors import UserError
from pipeline.stores.files import SHARE_SCHEMES, check_store
from pipeline.stores.folder import FolderStore
from pipeline.stores.remote import RemoteStore
from pipeline.stores.transfer import Store, WritableStore
from pipeline.stores.web import WebStore
from pipeline.urls import check_no_home, is_http, scheme_of, without_password

_LOOKS_LIKE_A_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_LOOKS_LIKE_SCP = re.compile(r"[^/]+@[^/]+:")


def open_store(url: str, named_in: str = "URL") -> Store:
    """Return the store that a URL or path names, to be read.

    Args:
        url: or a path.
        named_in: where people gave it, for errors: an option or an argument.

    Raises:
        UserError: on an unknown scheme, a URL with a password or query or without a place, or a
            missing package.
    """
    return _open(url, SHARE_SCHEMES, named_in=named_in)


def _open(
    url: str, schemes: Sequence[str], *, writes: bool = False, named_in: str = "URL"
) -> Store:
    check_no_secrets(url)
    if not url:  # as from a variable that is not set: the current folder is not meant
        raise UserError(f"{named_in}: is empty; give a folder or a store.")
    if "://" not in url and _LOOKS_LIKE_A_SCHEME.match(url):
        raise UserError(f"{url}: no such store; a folder of that name is given as ./{url}.")
    if _LOOKS_LIKE_SCP.match(url):
        raise UserError(
            f"{url}: no such store; over SSH one is given as sftp://USER@HOST/FOLDER, and a folder "
            f"of that name as ./{url}."
        )
    if url.startswith("file://") and not url.startswith("file:///"):
        raise UserError(
            f"{url}: names a host; a folder of this machine is given as file:///FOLDER."
        )
    if is_http(url):
        return WebStore(url, named_in)
    check_store(url, schemes, writes=writes)
    scheme = scheme_of(url)
    if scheme == "file":
        check_no_home(url)
        return FolderStore(url)
    if scheme == "hf":
        from pipeline.stores.hub import HubStore  # its package is an extra, and slow to import

        return HubStore(url)
    if not url.partition("://")[2].strip("/"):
        raise UserError(f"{url}: names no folder; give one, as in {scheme}://HOST/NAME.")
    return RemoteStore(url)


def open_writable(url: str, schemes: Sequence[str] = SHARE_SCHEMES) -> WritableStore:
    """Return the store that a URL or path names, to be written.

    Raises:
        UserError: as ``open_store``, over HTTP, and where its scheme is none of ``schemes``.
    """
    store = _open(url, schemes, writes=True)
    if isinstance(store, WebStore):
        raise UserError(f"{url}: web servers are only pulled from; push to a folder or a store.")
    return store  # type: ignore[return-value]


def canonical_url(store: Store) -> str:
    """Return a store's URL or path as it reads from every folder, the same for the same store.

    Raises:
        UserError: where it cannot be written down.
    """
    # `resolve` does not take links that lead to themselves.
    form = os.path.realpath(store.root) if isinstance(store, FolderStore) else store.url.rstrip("/")
    if not form.isprintable():
        raise UserError(f"{form!a}: holds what cannot be printed; name another place.")
    return form


def check_no_secrets(url: str) -> None:
    """Refuse passwords, tokens and signatures in a URL: it ends up in cards and in logs.

    Raises:
        UserError: which does not show it.
    """
    if "://" not in url:
        return
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(f"{without_password(url)}: is no URL: {error}.") from error
    user, at, host = parts.netloc.rpartition("@")
    port = host.rpartition("]")[2].partition(":")[2]
    has_bucket = parts.scheme in ("s3", "s3a", "gs", "gcs", "hf")
    is_port = not has_bucket and re.fullmatch("[0-9]{1,5}", port)
    is_cut = bool(port) and not is_port and "@" in parts.path  # by a slash in the password
    has_key = bool(at) and (has_bucket or is_http(url))
    if ":" in user or is_cut or has_key:
        raise UserError(
            "the URL holds a user or password: leave them out of it, and give them as the store's "
            "own settings do (NURIE_AUTHORIZATION for web servers, AWS_PROFILE, HF_TOKEN, "
            "FSSPEC_SFTP_PASSWORD, ...)."
        )
    if parts.query or parts.fragment:
        raise UserError("the URL holds a query or fragment: name the folder itself, without any.")
