"""What a path, URL or template of one names, by its text alone."""

import re


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


def without_password(text: str) -> str:
    """Return a text to show, with neither user nor password in URLs that hold both."""
    # A password may hold a slash: what follows the colon is one, unless it is a port. Buckets have
    # no port.
    return re.sub(r"(?:(?<=s3:)//[^/\s@]*:|//[^/\s@]*:(?!\d{1,5}/))\S*@", "//", text)
