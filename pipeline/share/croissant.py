"""``croissant.json``: the data set in Croissant 1.1, for search engines and loaders.

https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
"""

from typing import Any

import orjson

from pipeline.lockfile.lock import Lock
from pipeline.schema import SPLITS, extension_of
from pipeline.share.card import find_splits
from pipeline.share.index import CARD, CROISSANT, LOCK, Index, SharedFile, shard_files
from pipeline.urls import scheme_of

_Node = dict[str, Any]
VERSION = "http://mlcommons.org/croissant/1.1"

_TERMS = (
    *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field"),
    *("fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset"),
    *("jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
_CONTEXT: _Node = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS},
}

_KINDS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}
_FORMATS = {
    ".tar": "application/x-tar",
    ".parquet": "application/x-parquet",
    ".toml": "application/toml",
}
_POST_FIELDS = {
    "post_id": ("sc:Integer", "Danbooru's id of the post."),
    "split": ("sc:Text", "train, val or test."),
    "status": ("sc:Text", "What became of the post; `kept` ones are samples."),
    "reason": ("sc:Text", "Why, where there is more than one way."),
    "family": ("sc:Integer", "The same for posts that must not be in two splits."),
    "rating": ("sc:Text", "g, s, q or e, with its meaning at the time of the snapshot."),
    "width": ("sc:Integer", "Of the original, in pixels."),
    "height": ("sc:Integer", "Of the original, in pixels."),
}


def write_croissant(index: Index, lock: Lock) -> str:
    """Return the description of a data set as JSON-LD, by an index without card and Croissant."""
    described: _Node = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSION,
        "name": index.name,
        "description": index.recipe.description or "Pictures and their sketches, for colouring.",
        "url": _web_url(index.url),
        "license": "The pictures belong to their makers; no licence to them is granted.",
        "citeAs": _cite(index),
        "creator": {"@type": "Organization", "name": index.contact or "not named"},
        "datePublished": index.published,
        "version": "1.0.0",
        "keywords": ["anime", "colorization", "sketch"],
        "distribution": _distribution(index),
        "recordSet": [_splits(index, lock), _posts(), *map(_member, _picture_members(index))],
    }
    return orjson.dumps(described, option=orjson.OPT_INDENT_2).decode() + "\n"


def _cite(index: Index) -> str:
    """Return a BibTeX entry that names exactly this version."""
    year = index.published[:4]
    note = f"Fingerprint {index.fingerprint}"
    return f"@misc{{{index.name}, title={{{index.name}}}, year={{{year}}}, note={{{note}}}}}"


def _web_url(url: str) -> str:
    """Return the page of a data set, or where it lies: for a folder, where this file does."""
    if scheme_of(url) == "file":
        return "."
    if scheme_of(url) == "hf":
        return url.replace("hf://", "https://huggingface.co/", 1).partition("@")[0]
    return url


def _distribution(index: Index) -> list[_Node]:
    files = [file for file in index.files if file.name not in (CARD, CROISSANT)]
    tars = [{"@id": shard_files(shard)[0]} for shard in index.shards]
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": f"{member}-files",
            "name": f"{member}-files",
            "description": f"The member {extension_of(member)} of every sample.",
            "containedIn": tars,
            "encodingFormat": "image/jpeg" if member == "color" else "image/png",
            "includes": f"*.{extension_of(member)}",
        }
        for member in _picture_members(index)
    ]
    return [*map(_file_object, files), *sets]


def _file_object(file: SharedFile) -> _Node:
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "contentUrl": file.name,
        "contentSize": f"{file.size} B",
        "encodingFormat": _FORMATS[file.name[file.name.rindex(".") :]],
        "sha256": file.sha256,
    }


def _picture_members(index: Index) -> list[str]:
    return ["color", *index.recipe.prepare.sketch_members] if index.shards else []


def _splits(index: Index, lock: Lock) -> _Node:
    sizes = {split.name: split.num_examples for split in find_splits(index, lock)}
    rows = [
        {
            "splits/name": name,
            "splits/url": _KINDS[name].replace("cr:", _CONTEXT["cr"]),
            "splits/num_samples": sizes.get(name, 0),
        }
        for name in SPLITS
    ]
    fields = {"name": "sc:Text", "url": "sc:URL", "num_samples": "sc:Integer"}
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [_field("splits", name, type_) for name, type_ in fields.items()],
        "data": rows,
    }


def _posts() -> _Node:
    fields = []
    for name, (type_, description) in _POST_FIELDS.items():
        source = {"fileObject": {"@id": LOCK}, "extract": {"column": name}}
        fields.append(_field("posts", name, type_) | {"description": description, "source": source})
        if name == "split":
            fields[-1]["references"] = {"field": {"@id": "splits/name"}}
    return {
        "@type": "cr:RecordSet",
        "@id": "posts",
        "name": "posts",
        "description": "Every planned post with its fate.",
        "key": {"@id": "posts/post_id"},
        "field": fields,
    }


def _member(member: str) -> _Node:
    """Return the record set of one member: the sample's key, and the picture."""
    where = {"fileSet": {"@id": f"{member}-files"}}
    key = _field(member, "key", "sc:Text") | {
        "description": "The post's id in at least nine digits; one for all members of a sample.",
        "source": where
        | {"extract": {"fileProperty": "filename"}, "transform": {"regex": r"^([0-9]+)\."}},
    }
    picture = _field(member, "picture", "sc:ImageObject") | {
        "source": where | {"extract": {"fileProperty": "content"}},
    }
    return {
        "@type": "cr:RecordSet",
        "@id": member,
        "name": member,
        "description": f"The member {extension_of(member)} of every sample.",
        "key": {"@id": f"{member}/key"},
        "field": [key, picture],
    }


def _field(record_set: str, name: str, type_: str) -> _Node:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": name,
        "dataType": type_,
    }
