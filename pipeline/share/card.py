"""The data set card: ``README.md`` with YAML front matter, as the Hugging Face Hub reads it.

It is made of the index and the lock alone, so the same data set has the same card.
"""

import json
import shlex
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.lockfile.lock import Lock
from pipeline.recipe import Recipe
from pipeline.recipe_file import recipe_toml
from pipeline.records import Status
from pipeline.schema import SPLITS, extension_of
from pipeline.shards.shard import parse_shard_name
from pipeline.share.index import Index, shard_files
from pipeline.urls import scheme_of
from pipeline.words import counted, plain, quoted

_DESCRIPTION = {
    "post_id": "int64",
    **dict.fromkeys(("split", "md5", "character", "rating", "tags"), "string"),
    **dict.fromkeys(("width", "height"), "int64"),
}
"""What the member ``json`` holds, with the Hub's names of types."""

_FOLDER = "FOLDER"  # where a card cannot know it: it travels with its folder

_SIZES = {"n<1K": 10**3, "1K<n<10K": 10**4, "10K<n<100K": 10**5, "100K<n<1M": 10**6}


@dataclass(frozen=True, slots=True)
class Split:
    """One split of a shared data set."""

    name: str
    shards: list[str]
    num_examples: int
    num_bytes: int  # of the tars

    @property
    def braces(self) -> str:
        """The names of its shards as one pattern: a range of numbers, or a list with gaps."""
        if len(self.shards) == 1:
            return self.shards[0]
        numbers = [f"{parse_shard_name(shard)[1]:06d}" for shard in self.shards]
        is_range = int(numbers[-1]) - int(numbers[0]) == len(numbers) - 1
        inner = f"{numbers[0]}..{numbers[-1]}" if is_range else ",".join(numbers)
        return f"{self.name}-{{{inner}}}"


def find_splits(index: Index, lock: Lock) -> list[Split]:
    """Return the splits that have shards, with their samples by the lock."""
    kept = pc.equal(lock.posts["status"], Status.KEPT)
    splits = lock.posts["split"].cast(pa.string()).filter(kept)
    counts = {entry["values"]: entry["counts"] for entry in splits.value_counts().to_pylist()}
    files = index.by_name
    found = []
    for name in SPLITS:
        shards = [shard for shard in index.shards if parse_shard_name(shard)[0] == name]
        num_bytes = sum(files[shard_files(shard)[0]].size for shard in shards)
        if shards:
            found.append(Split(name, shards, counts.get(name, 0), num_bytes))
    return found


def write_card(index: Index, lock: Lock) -> str:
    """Return the card of a data set, by an index of all its files but the card."""
    splits, num_samples = find_splits(index, lock), lock.info.fates.get(Status.KEPT, 0)
    with_samples = [split for split in splits if split.num_examples]
    environment = Environment(
        loader=PackageLoader("pipeline.share", "."),
        autoescape=False,  # Markdown; what strangers may have written goes through filters
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"counted": counted, "plain": plain, "quoted": quoted}
    as_python = partial(json.dumps, ensure_ascii=False)
    environment.filters |= {"shell": shlex.quote, "literal": as_python}
    scheme = scheme_of(index.url)
    url = _FOLDER if scheme == "file" else index.url.rstrip("/")
    by_name = {"file": url, "hf": url.removeprefix("hf://datasets/").partition("@")[0]}
    return environment.get_template("card.md.j2").render(
        front_matter=_front_matter(index, splits, num_samples),
        index=index,
        lock=lock,
        splits=splits,
        first=next(iter(with_samples or splits), None),
        has_samples=bool(with_samples),
        num_samples=num_samples,
        url=url,
        stands_for_folder=url == _FOLDER,
        streams=scheme in ("file", "hf", "gs"),
        loads_by_name=by_name.get(scheme, ""),
        work=f"data/{index.name}",
        selected=_by_count(lock.info.counts),
        fates=_by_count(lock.info.fates),
        origin=_origin(lock.info.recipe),
        recipe=recipe_toml(index.recipe),
    )


def _by_count(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _origin(recipe: Recipe) -> str:
    """Return where the pictures came from, without any path of a machine."""
    images = recipe.source.images
    if images == "{file_url}":
        return "what each record names as its file"
    host = urlsplit(images).hostname if "://" in images else None
    return quoted(f"{scheme_of(images)}://{host}") if host else "copies on their publisher's disk"


def _front_matter(index: Index, splits: list[Split], num_samples: int) -> str:
    size = next((name for name, most in _SIZES.items() if num_samples < most), "1M<n<10M")
    about: dict[str, Any] = {
        "pretty_name": index.name,
        "license": "other",
        "license_name": "pictures-belong-to-their-makers",
        "task_categories": ["image-to-image"],
        "tags": ["anime", "colorization", "sketch", "webdataset", "croissant"],
        "size_categories": [size],
    }
    if splits:
        files = [{"split": split.name, "path": f"samples/{split.name}-*.tar"} for split in splits]
        about["configs"] = [{"config_name": "default", "data_files": files}]
        num_bytes = sum(split.num_bytes for split in splits)
        about["dataset_info"] = {
            "features": list(_features(index.recipe)),
            "splits": [
                {
                    "name": split.name,
                    "num_bytes": split.num_bytes,
                    "num_examples": split.num_examples,
                }
                for split in splits
            ],
            "download_size": num_bytes,
            "dataset_size": num_bytes,
        }
    return str(yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=100))


def _features(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the members of a sample in the Hub's words, with the two that its loader adds."""
    description = [{"name": name, "dtype": dtype} for name, dtype in _DESCRIPTION.items()]
    sketches = [extension_of(member) for member in recipe.prepare.sketch_members]
    return [
        {"name": extension_of("color"), "dtype": "image"},
        {"name": "json", "struct": description},
        *({"name": name, "dtype": "image"} for name in sketches),
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]
