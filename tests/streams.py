"""Samples that are read from afar, from a server that counts what it gives."""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from model.config import TrainConfig
from model.data.epochs import iterate_steps
from model.data.samples import Batch, Samples
from model.ranks import Ranks
from pipeline.shards.shard import list_shards, tar_path
from pipeline.share.stream import RemoteShards

CONFIG = TrainConfig(batch_size=4, epochs=2, decode_threads=2)
BIG = 10**9


class CountingServer:
    """Serves a folder with ranges; counts the bytes and requests of each tar."""

    def __init__(self, server: HTTPServer, directory: Path) -> None:
        self.url = server.url_for("/set").replace("localhost", "127.0.0.1")
        self.directory = directory
        self.num_bytes: Counter[str] = Counter()
        self.requests: list[tuple[str, range]] = []
        self.spoil: Callable[[bytes], bytes] = bytes
        self.watch: Callable[[], object] = lambda: None
        self.num_dropped = 0
        self.drops_every = 0
        self._lock = threading.Lock()
        server.expect_request(re.compile("/set/")).respond_with_handler(self._serve)

    def _serve(self, request: Request) -> Response:
        path = self.directory / request.path.removeprefix("/set/")
        if not path.is_file():
            return Response("", 404)
        data = path.read_bytes()
        whole = Response(data)
        response = whole.make_conditional(request, accept_ranges=True, complete_length=len(data))
        if path.suffix != ".tar":
            return response
        wanted = request.range.range_for_length(len(data)) if request.range else (0, len(data))
        assert wanted is not None
        with self._lock:
            self.requests.append((path.stem, range(*wanted)))
            self.watch()
            num_requests = sum(name == path.stem for name, _ in self.requests)
            if self.drops_every and num_requests % self.drops_every == 0:
                self.num_dropped += 1
                headers = {"Content-Length": str(wanted[1] - wanted[0])}
                cut = data[wanted[0] : wanted[0] + (wanted[1] - wanted[0]) // 2]
                return Response(iter([cut]), 206, headers)
            self.num_bytes[path.stem] += wanted[1] - wanted[0]
        return Response(self.spoil(response.get_data()), response.status, response.headers)


@contextmanager
def streaming(url: str, cache: Path, budget: int) -> Iterator[Samples]:
    with closing(RemoteShards(url, cache, budget)) as shards, Samples(shards, "train") as samples:
        yield samples


def steps_of(samples: Samples, config: TrainConfig, position: int = 0) -> list[Batch]:
    return [
        batch for _, _, batch, _ in iterate_steps(samples, config, Ranks(), 0, position, pin=False)
    ]


def assert_same(one: Samples, other: Samples, config: TrainConfig, position: int = 0) -> None:
    """Both give the same batches, from a place in the first epoch on."""
    for a, b in zip(*(steps_of(s, config, position) for s in (one, other)), strict=True):
        assert np.array_equal(a.post_ids, b.post_ids)
        for name in ("color", "sketch", "reference"):
            assert torch.equal(getattr(a, name), getattr(b, name))


def sizes_of(streamed: Path) -> dict[str, int]:
    samples_dir = streamed / "work" / "samples"
    names = list_shards(samples_dir, "train")
    return {name: tar_path(samples_dir, name).stat().st_size for name in names}
