"""Colouring files: one sketch after one reference, or many sketches after several."""

import math
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from model.grid import Sheet, encode_png, lay_out
from model.use.painter import Painter, Reference, remarks_on
from model.use.picture_files import SUFFIXES, check_output, name_files, save_picture
from model.use.pictures import fit, open_picture
from pipeline.disk import check_writable, telling_unwritable, write_whole
from pipeline.errors import UserError
from pipeline.progress import show_progress

_SHEET_SIDE = 4096  # pixels across, at most
_CELL_SIDE = 256
_SHEET_ROWS = 16


@dataclass(frozen=True, slots=True)
class Colorized:
    """What became of many sketches and references.

    Attributes:
        num_sketches: that were coloured after every usable reference.
        num_references: that were usable.
        left_out: why each of the others was not.
    """

    num_sketches: int
    num_references: int
    left_out: tuple[str, ...]

    @property
    def num_pictures(self) -> int:
        """How many pictures were written."""
        return self.num_sketches * self.num_references


def colorize_one(
    painter: Painter,
    sketch: Path,
    reference: Path,
    out: Path,
    console: Console,
    read_sketch: Callable[[Path], Image.Image],
    guidance: float = 1.0,
) -> tuple[int, int]:
    """Colour one sketch after one reference.

    Args:
        painter: what colours.
        sketch: dark lines on light paper, of any size.
        reference: a coloured picture, of any size.
        out: where the picture goes; its suffix says in which format.
        console: where remarks go.
        read_sketch: opens one; see ``picture_files``.
        guidance: see ``Painter.paint``.

    Returns:
        Width and height of what was written: the sketch's.

    Raises:
        UserError: on files that are not usable, or an output format that is not known.
    """
    check_output(out)
    _spare([out], [sketch], [reference])
    check_writable(out)
    picture = read_sketch(sketch)
    looked_at = _look_at(painter, open_picture(reference), reference, console)
    _say(console, remarks_on(picture, str(sketch)))
    painted = painter.paint(picture, looked_at, guidance)
    save_picture(painted, out)
    return painted.size


def colorize_many(
    painter: Painter,
    sketches: Sequence[Path],
    references: Sequence[Path],
    out_dir: Path,
    console: Console,
    read_sketch: Callable[[Path], Image.Image],
    guidance: float = 1.0,
) -> Colorized:
    """Colour every usable sketch after every usable reference.

    Writes ``SKETCH.png``. Of several references each has a folder of these, and beside the folders
    lie ``contact-sheet-1.png`` and so on: a sketch a row, a reference a column. The other arguments
    are those of ``colorize_one``.

    Raises:
        UserError: where no sketch or no reference is usable, or a picture that was given would be
            replaced.
    """
    if not out_dir.is_dir() and (out_dir.exists() or out_dir.suffix.lower() in SUFFIXES):
        is_file = "is a file" if out_dir.exists() else "is a picture's name"
        raise UserError(f"{out_dir}: {is_file}, and several pictures go into a folder.")
    # `resolve` does not take links that lead to themselves.
    if Path(os.path.realpath(out_dir)) in {Path(os.path.realpath(p)).parent for p in sketches}:
        raise UserError(f"{out_dir}: holds the sketches, which would be replaced; give another.")
    names = name_files(references)
    targets = _targets(sketches, names.values(), out_dir)
    _spare(targets, sketches, references)
    check_writable(*targets)
    sheets = _Sheets(out_dir, len(references)) if len(references) > 1 else None
    looked_at, left_out = {}, []
    for path, name in names.items():
        try:
            picture = open_picture(path)
        except UserError as error:
            left_out.append(str(error))
            continue
        looked_at[name] = _look_at(painter, picture, path, console)
        if sheets is not None:
            sheets.add_reference(name, picture)
    _check_any(looked_at, left_out)
    num_done = 0
    with show_progress(console, "colorize, sketches", len(sketches)) as show:
        for number, (path, name) in enumerate(name_files(sketches).items(), start=1):
            try:
                sketch = read_sketch(path)
            except UserError as error:
                left_out.append(str(error))
                continue
            finally:
                show(number)
            _say(console, remarks_on(sketch, str(path)))
            row = [sketch]
            for reference_name, reference in looked_at.items():
                folder = out_dir if sheets is None else out_dir / reference_name
                row.append(painter.paint(sketch, reference, guidance))
                save_picture(row[-1], folder / f"{name}.png")
            num_done += 1
            if sheets is not None:
                sheets.add(row)
    if sheets is not None:
        sheets.flush()
    _check_any(num_done, left_out)
    return Colorized(num_done, len(looked_at), tuple(left_out))


def _check_any(usable: object, left_out: Iterable[str]) -> None:
    """Refuse to end as if something had been coloured where nothing could be."""
    if not usable:
        raise UserError("\n".join(["nothing is coloured:", *left_out]))


def _targets(sketches: Sequence[Path], references: Collection[str], out_dir: Path) -> list[Path]:
    """Return all that ``colorize_many`` may write; ``references`` are their names."""
    several = len(references) > 1
    folders = [out_dir / name for name in references] if several else [out_dir]
    names = name_files(sketches).values()
    num_pages = math.ceil(len(sketches) / _SHEET_ROWS) if several else 0
    return [
        *(folder / f"{name}.png" for folder in folders for name in names),
        *(_sheet_path(out_dir, number) for number in range(1, num_pages + 1)),
    ]


def _spare(targets: Iterable[Path], sketches: Iterable[Path], references: Iterable[Path]) -> None:
    """Refuse to write over what was given."""
    given = {os.path.realpath(path): "a sketch" for path in sketches}
    given |= {os.path.realpath(path): "a reference" for path in references}
    for target in targets:
        if (what := given.get(os.path.realpath(target))) is not None:
            raise UserError(f"{target}: is {what}, which would be replaced; give another --out.")


def _sheet_path(out_dir: Path, number: int) -> Path:
    return out_dir / f"contact-sheet-{number}.png"


class _Sheets:
    """Contact sheets under way: no more of them is held than one page."""

    def __init__(self, out_dir: Path, num_references: int) -> None:
        self._out_dir = out_dir
        self._labels = [""]
        self._side = min(_CELL_SIDE, _SHEET_SIDE // (1 + num_references))
        self._heads = [self._cell(Image.new("RGB", (1, 1), "white"))]
        self._rows = [self._heads]
        self._num_pages = 0

    def add_reference(self, name: str, picture: Image.Image) -> None:
        """Add a reference to the head of every page, as it is: a model sees it smaller."""
        self._labels.append(name)
        self._heads.append(self._cell(picture))

    def add(self, row: Iterable[Image.Image]) -> None:
        """Add a sketch and what it was coloured to, one a reference."""
        self._rows.append([self._cell(picture) for picture in row])
        if len(self._rows) > _SHEET_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the page that is under way, if there is anything on it."""
        if len(self._rows) > 1:
            self._num_pages += 1
            columns = dict(zip(self._labels, zip(*self._rows, strict=True), strict=True))
            path = _sheet_path(self._out_dir, self._num_pages)
            with telling_unwritable(path):
                write_whole(path, encode_png(lay_out(columns)))
            self._rows = [self._heads]

    def _cell(self, picture: Image.Image) -> Sheet:
        return np.asarray(fit(picture, (self._side, self._side), pad=True))


def _look_at(painter: Painter, picture: Image.Image, path: Path, console: Console) -> Reference:
    reference = painter.look_at(picture, str(path))
    if not reference.has_color:
        _say(console, [f"{path}: has no colour, so what is coloured after it has none."])
    return reference


def _say(console: Console, remarks: Iterable[str]) -> None:
    for remark in remarks:
        console.print(remark)
