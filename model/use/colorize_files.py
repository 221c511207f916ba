"""Colouring files: one sketch after one reference, or many sketches after several."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from model.grid import Sheet, lay_out, save_png
from model.interact import show_progress
from model.use.painter import DrawLines, Painter, Reference, check_sketch, redraw, remarks_on
from model.use.pictures import NotLineArtError, fit, open_picture
from pipeline.errors import UserError
from pipeline.storage.rows import replacing, telling_unwritable
from pipeline.words import counted

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".psd")
)
"""What is taken out of a folder; a file that is named itself may be called anything."""

_SHEET_SIDE = 4096  # pixels across, at most
_CELL_SIDE = 256
_SHEET_ROWS = 16


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
        read_sketch: see there.
        guidance: see ``Painter.paint``.

    Returns:
        Width and height of what was written: the sketch's.

    Raises:
        UserError: on files that are not usable, or an output format that is not known.
    """
    check_output(out)
    _spare([out], [sketch], [reference])
    picture = read_sketch(sketch)
    looked_at = _read_reference(painter, reference, console)
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
) -> int:
    """Colour every sketch after every reference.

    Writes ``SKETCH.png``. Of several references each has a folder of these, and beside the folders
    lie ``contact-sheet-1.png`` and so on: a sketch a row, a reference a column.

    Args:
        painter: what colours.
        sketches: files.
        references: files.
        out_dir: where the pictures go, each of its sketch's size.
        console: where remarks and progress go.
        read_sketch: see there.
        guidance: see ``Painter.paint``.

    Returns:
        How many pictures were written.

    Raises:
        UserError: on a reference that is not usable, or where a picture that was given would be
            replaced; on sketches that are not usable only when all others are done.
    """
    if not out_dir.is_dir() and (out_dir.exists() or out_dir.suffix.lower() in SUFFIXES):
        is_file = "is a file" if out_dir.exists() else "is a picture's name"
        raise UserError(f"{out_dir}: {is_file}, and several pictures go into a folder.")
    if out_dir.resolve() in {path.resolve().parent for path in sketches}:
        raise UserError(f"{out_dir}: holds the sketches, which would be replaced; give another.")
    names = name_files(references)
    _spare(_targets(sketches, names.values(), out_dir), sketches, references)
    looked_at = {names[path]: _read_reference(painter, path, console) for path in references}
    sheets = _Sheets(out_dir, looked_at) if len(references) > 1 else None
    num_written, num_refused = 0, 0
    with show_progress(console, "colorize", "sketches", len(sketches)) as advance:
        for path, name in name_files(sketches).items():
            try:
                sketch = read_sketch(path)
            except UserError as error:
                num_refused += 1
                _say(console, [f"not coloured: {error}"])
                continue
            finally:
                advance(1)
            _say(console, remarks_on(sketch, str(path)))
            row = [sketch]
            for reference_name, reference in looked_at.items():
                folder = out_dir if sheets is None else out_dir / reference_name
                row.append(painter.paint(sketch, reference, guidance))
                save_picture(row[-1], folder / f"{name}.png")
                num_written += 1
            if sheets is not None:
                sheets.add(row)
    if sheets is not None:
        sheets.flush()
    if num_refused:
        is_not = "is not" if num_refused == 1 else "are not"
        others = f"; the others are in {out_dir}" if num_written else ""
        raise UserError(
            f"{num_refused} of {counted(len(sketches), 'sketch', 'sketches')} {is_not} coloured, "
            f"for the reasons above{others}."
        )
    return num_written


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
    given = {path.resolve(): "a sketch" for path in sketches}
    given |= {path.resolve(): "a reference" for path in references}
    for target in targets:
        if (what := given.get(target.resolve())) is not None:
            raise UserError(f"{target}: is {what}, which would be replaced; give another --out.")


def _sheet_path(out_dir: Path, number: int) -> Path:
    return out_dir / f"contact-sheet-{number}.png"


class _Sheets:
    """Contact sheets under way: no more of them is held than one page."""

    def __init__(self, out_dir: Path, references: dict[str, Reference]) -> None:
        self._out_dir = out_dir
        self._labels = ["", *references]
        self._side = min(_CELL_SIDE, _SHEET_SIDE // len(self._labels))
        blank = np.full((1, 1, 3), 255, np.uint8)
        shown = [blank, *(reference.pixels for reference in references.values())]
        self._heads = [self._cell(Image.fromarray(pixels)) for pixels in shown]
        self._rows = [self._heads]
        self._num_pages = 0

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
                save_png(path, lay_out(columns))
            self._rows = [self._heads]

    def _cell(self, picture: Image.Image) -> Sheet:
        return np.asarray(fit(picture, (self._side, self._side), pad=True))


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Return the files among ``paths``, and in place of each folder the pictures in it; each once.

    Of a folder hidden files and further folders are left out.

    Raises:
        UserError: on a folder without pictures.
    """
    found = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if _looks_like_a_picture(p))
            if not inside:
                raise UserError(f"{path}: there are no pictures in it.")
        found += inside
    return list(dict.fromkeys(found))


def _looks_like_a_picture(path: Path) -> bool:
    """Whether a path in a folder is one to take: not ``._a.png``, which macOS lays beside it."""
    hidden = path.name.startswith(".")
    return path.suffix.lower() in SUFFIXES and not hidden and not path.is_dir()


def name_files(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a name for each file, without its suffix, and with a number where it is taken.

    In capitals or not a name is the same: on many disks one file would replace the other.
    """
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = path.stem, 2
        while name.casefold() in taken:
            name, number = f"{path.stem}-{number}", number + 1
        taken.add(name.casefold())
        names[path] = name
    return names


def read_sketch(
    path: Path, draw_lines: DrawLines | None = None, *, check: bool = True
) -> Image.Image:
    """Open a sketch.

    Args:
        path: of a picture.
        draw_lines: how to make line art of it, where it is none.
        check: refuse what is no line art.

    Raises:
        UserError: on a file that is no picture, or a picture that is no sketch.
    """
    picture = open_picture(path)
    if draw_lines is not None:
        picture = redraw(picture, draw_lines)
    if check or draw_lines is not None:
        try:
            check_sketch(picture, str(path))
        except NotLineArtError as error:
            raise NotLineArtError(
                f"{error} Draw its lines with --extract-lines dodge, or say with "
                "--extract-lines none that these are its lines."
            ) from error
    return picture


def check_output(path: Path) -> str:
    """Return the format that a file's suffix stands for.

    Raises:
        UserError: where there is none, or none that keeps a picture's size; or a folder is there.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the picture in it, such as {path / 'c.png'}.")
    format_name = Image.registered_extensions().get(path.suffix.lower(), "")
    if format_name not in Image.SAVE:
        raise UserError(f"{path}: no known picture format; name it .png, .jpg or .webp.")
    if format_name in ("ICO", "ICNS"):
        raise UserError(f"{path}: icons have sizes of their own; name it .png, .jpg or .webp.")
    return format_name


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format that its suffix stands for.

    Raises:
        UserError: where that cannot be done.
    """
    format_name = check_output(path)
    try:
        with replacing(path) as temporary:
            picture.save(temporary, format=format_name)
    except (OSError, ValueError) as error:  # JPEG, say, ends at 65,500 pixels a side
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be written: {why}.") from error


def _read_reference(painter: Painter, path: Path, console: Console) -> Reference:
    reference = painter.look_at(open_picture(path), str(path))
    if not reference.has_color:
        _say(console, [f"{path}: has no colour, so what is coloured after it has none."])
    return reference


def _say(console: Console, remarks: Iterable[str]) -> None:
    for remark in remarks:
        console.print(remark)
