"""The files beside the samples: card, Croissant and index, made of what the others hold."""

from dataclasses import replace
from pathlib import Path

from pipeline.disk import hash_file, write_whole
from pipeline.lockfile.lock import Lock
from pipeline.share.card import write_card
from pipeline.share.croissant import write_croissant
from pipeline.share.index import CARD, CROISSANT, INDEX, SIDECARS, Index, SharedFile, write_index
from pipeline.work import Work


def write_sidecars(share_dir: Path, index: Index, lock: Lock) -> Index:
    """Write card and Croissant about the other files of an index; return the index with them.

    A copy of it is left in ``share_dir``, beside them.
    """
    files = [file for file in index.files if file.name not in (CARD, CROISSANT)]
    index = replace(index, files=tuple(sorted(files))).seal()
    texts = {CARD: write_card(index, lock), CROISSANT: write_croissant(index, lock)}
    for name, text in texts.items():
        write_whole(share_dir / name, text)
        files.append(describe(share_dir / name, name))
    index = replace(index, files=tuple(sorted(files)))
    write_whole(share_dir / INDEX, write_index(index))
    return index


def describe(path: Path, name: str) -> SharedFile:
    """Return a file of the data set, with the size and sum of what lies at ``path``."""
    return SharedFile(name, path.stat().st_size, hash_file(path))


def path_of(work: Work, name: str) -> Path:
    """Return where a file of the data set lies in a work folder."""
    return work.share_dir / name if name in SIDECARS else work.root / name
