"""What a path, URL or template of one names, by its text alone."""

import os
import re
from pathlib import Path

from pipeline.errors import UserError


def scheme_of(place: str) -> str:
    """Return what stands before ``://``, "file" for a plain path."""
    scheme, separator, _ = place.partition("://")
    return scheme if separator else "file"


def is_http(place: str) -> bool:
    """Whether it names something that is asked for over HTTP."""
    return scheme_of(place) in ("http", "https")


def is_web_template(template: str) -> bool:
    """Whether what a template names is asked for over HTTP."""
    return template == "{file_url}" or is_http(template)


def is_on_disk(template: str) -> bool:
    """Whether a template names files on this machine, for which nobody is asked."""
    return template != "{file_url}" and scheme_of(template) == "file"


def check_no_home(place: str) -> None:
    """Check that a path does not begin with the ~ of a home folder, as the shell left it.

    Arrow would replace it behind our back, where everything else makes a folder of that name.

    Raises:
        UserError: where it does.
    """
    path = str(Path(place))
    if os.path.expanduser(path) != path:  # noqa: PTH111  Path's fails on other names
        raise UserError(
            f"{place}: the shell makes ~ a home folder only without quotes and where a word "
            "begins, as in `--work ~/x`; else give the whole path, from / on."
        )


def without_password(text: str) -> str:
    """Return a text to show, with neither user nor password in URLs that hold both."""
    # A password may hold a slash: what follows the colon is one, unless it is a port. Buckets have
    # no port.
    return re.sub(r"(?:(?<=s3:)//[^/\s@]*:|//[^/\s@]*:(?!\d{1,5}/))\S*@", "//", text)
