"""Which pictures go in, under which names others come out, and both on disk."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from model.use.painter import DrawLines, check_sketch, redraw
from model.use.pictures import NotLineArtError, open_picture
from pipeline.disk import reason, replacing
from pipeline.errors import UserError

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".psd")
)
"""What is taken out of a folder; a file that is named itself may be called anything."""


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
        stem = path.stem if path.stem.strip(".") else "picture"  # `...png` has the stem `..`
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        names[path] = name
    return names


def read_sketch(
    path: Path, draw_lines: DrawLines | None = None, *, check: bool = True
) -> Image.Image:
    """Open a sketch, or a picture to draw the lines of; ``check`` refuses what is no line art.

    Raises:
        UserError: on a file that is no picture, or a picture that is no sketch.
    """
    picture = open_picture(path)
    if draw_lines is not None:
        picture = redraw(picture, draw_lines)
    if check:
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
        raise UserError(f"{path}: cannot be written: {reason(error)}.") from error
