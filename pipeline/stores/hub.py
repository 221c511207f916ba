"""A data set repository on the Hugging Face Hub, through its own client.

Reading goes through the client's fsspec file system, at one commit: what is pushed meanwhile is
not mixed in. Writing goes by commits of many files. Endpoint and token are the client's own affair
(HF_ENDPOINT, HF_TOKEN, ``hf auth login``).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from pipeline.errors import UserError
from pipeline.stores.remote import RemoteStore
from pipeline.stores.transfer import Outgoing, Tick, check_sum, unreadable, unwritable

_URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?")
_MAX_FILES = 100  # of a commit, so that an interrupted push has something to go on from
_MESSAGE = "Push with Nurie"


class HubStore(RemoteStore):
    """A repository of the kind ``hf://datasets/OWNER/NAME`` or ``.../NAME@REVISION``."""

    def __init__(self, url: str) -> None:
        found = _URL.fullmatch(url)
        if found is None:
            raise UserError(f"{url}: name a data set repository: hf://datasets/OWNER/NAME.")
        self._repo: dict[str, Any] = {"repo_id": found[1], "repo_type": "dataset"}
        self._revision = found[2] or "main"
        self._api = HfApi()
        super().__init__(url)
        commit = self._find_commit()
        self._root = f"hf://datasets/{found[1]}@{commit or self._revision}"
        self.num_connections = 4

    def _find_commit(self) -> str | None:
        """Return the commit that the revision is at, or None where there is no such thing yet."""
        try:
            return self._api.repo_info(**self._repo, revision=self._revision).sha
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None
        except Exception as error:
            raise unreadable(self.url, error) from error

    def sizes(self) -> dict[str, int]:
        """Return what is there; see ``WritableStore``."""
        if self._find_commit() is None:
            return {}
        try:
            tree = self._api.list_repo_tree(**self._repo, revision=self._revision, recursive=True)
            return {entry.path: entry.size for entry in tree if hasattr(entry, "size")}
        except Exception as error:
            raise unreadable(self.url, error) from error

    def put(self, files: Mapping[str, Outgoing], tick: Tick) -> None:
        """Put files there, a hundred a commit; a missing repository is made, and private."""
        if self._find_commit() is None:
            self._call(self._api.create_repo, private=True, exist_ok=True)
        for start in range(0, len(files), _MAX_FILES):
            names = list(files)[start : start + _MAX_FILES]
            for name in names:
                check_sum(*files[name])
            additions = [CommitOperationAdd(name, str(files[name][0])) for name in names]
            self._commit(additions)
            tick(sum(files[name][0].stat().st_size for name in names))

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; see ``WritableStore``."""
        there = self.sizes()
        if deletions := [CommitOperationDelete(name) for name in names if name in there]:
            self._commit(deletions)

    def _commit(self, operations: list[Any]) -> None:
        options = {"revision": self._revision, "commit_message": _MESSAGE}
        self._call(self._api.create_commit, operations=operations, **options)

    def _call(self, do: Any, **options: Any) -> None:
        try:
            do(**self._repo, **options)
        except Exception as error:
            raise unwritable(self.url, error) from error
