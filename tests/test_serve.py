import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from pipeline.web.serve import serve_folder


def test_a_folder_is_served_and_the_server_stops(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with serve_folder(tmp_path) as url:
        assert url.startswith("http://127.0.0.1:")
        assert requests.get(f"{url}/a.txt", timeout=60).text == "hello"
        assert requests.get(f"{url}/b.txt", timeout=60).status_code == 404
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=60)


@pytest.mark.parametrize("target", ["/../secret", "/%2e%2e/secret", "/a/../../secret"])
def test_nothing_beside_the_folder_is_served(tmp_path: Path, target: str) -> None:
    """By a socket, as other clients take such a path apart before they ask."""
    (tmp_path / "secret").write_text("hidden")
    (tmp_path / "folder" / "a").mkdir(parents=True)
    with serve_folder(tmp_path / "folder") as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port), timeout=60) as asking:
            asking.sendall(f"GET {target} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
            with asking.makefile("rb") as answer:
                told = answer.read()
    assert told.startswith(b"HTTP/1.1 404 ")
    assert b"hidden" not in told
