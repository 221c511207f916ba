from pathlib import Path

import pytest
import requests

from pipeline.serve import serve_folder


def test_a_folder_is_served_and_the_server_stops(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with serve_folder(tmp_path) as url:
        assert url.startswith("http://127.0.0.1:")
        assert requests.get(f"{url}/a.txt", timeout=60).text == "hello"
        assert requests.get(f"{url}/b.txt", timeout=60).status_code == 404
        assert requests.get(f"{url}/../../etc/passwd", timeout=60).status_code == 404
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=60)
