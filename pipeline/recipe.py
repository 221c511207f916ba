"""What is wanted: ``manifests/NAME/recipe.toml`` <-> frozen dataclasses.

Precedence: the defaults here < the recipe's file < ``--set section.key=value``. The effective
recipe is written into everything that it made.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.schema import MAX_SIDE, SKETCH, is_sketch_name
from pipeline.words import did_you_mean

PICTURE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "avif")
RATINGS = ("g", "s", "q", "e")


@dataclass(frozen=True, slots=True)
class SelectSettings:
    """Which posts are wanted.

    Attributes:
        snapshot: year of the metadata. It decides what a rating means: until 2021 ``s`` is safe,
            from 2023 ``g`` is general and ``s`` is sensitive; 2022 is a mixture.
        rating: ``["safe"]`` for the snapshot's strict reading, or ratings out of g, s, q, e.
        tags: tags that a post must all have, as exact tokens.
        any_tags: tags of which a post must have at least one; without any, all will do. Records
            are searched by ``tags`` before they are parsed, and not by these.
        exclude_tags: tags of which a post must have none.
        extensions: file extensions that count as still pictures.
        nsfw_ids: path of a list of ids to leave out although rated safe; "" looks for
            ``nsfw-ids.txt`` beside the metadata.
        min_side: least width and height of the original in pixels; 0 for no limit.
    """

    snapshot: int = 2021
    rating: tuple[str, ...] = ("safe",)
    tags: tuple[str, ...] = ()
    any_tags: tuple[str, ...] = ()
    exclude_tags: tuple[str, ...] = ()
    extensions: tuple[str, ...] = PICTURE_EXTENSIONS
    nsfw_ids: str = ""
    min_side: int = 0

    def __post_init__(self) -> None:
        known = ("safe", *RATINGS)
        unknown = next((rating for rating in self.rating if rating not in known), None)
        if unknown is not None:
            hint = did_you_mean(unknown, known)
            raise ValueError(f"select.rating: {unknown!r}{hint} is none of {', '.join(known)}")
        if not self.rating:
            raise ValueError(f"select.rating: name one of {', '.join(known)} at least")
        if odd := next((e for e in self.extensions if e != e.lower().strip(". ")), None):
            raise ValueError(f"select.extensions: {odd!r} is none; they are written as in jpg")
        _check_range("select.snapshot", self.snapshot, 2005, 9999)
        _check_range("select.min_side", self.min_side, 0, 2**31 - 1)


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where metadata and pictures come from, and how politely.

    Attributes:
        metadata: path of the metadata: a file, or a folder of files; or the URL of a Danbooru's
            API, such as ``https://danbooru.donmai.us/posts.json``.
        images: path or URL with ``{id} {bucket} {ext} {md5}``; ``{bucket}`` is id % 1000 in four
            digits, as in Danbooru2021's folders. ``{file_url}`` alone is what the record names.
            ``s3://``, ``gs://``, ``az://`` and ``hf://`` are read through fsspec. A ``.tar#``
            divides a tar from its member, as in
            ``hf://datasets/deepghs/danbooru2024/images/{bucket}.tar#{id}.{ext}``; beside the tar
            lies its index, ``{bucket}.json``.
        layout: ``512px`` (letterboxed JPEGs of Danbooru2021) or ``original``.
        hosts: hosts that may be asked besides the one named in ``images``, as ``host`` or
            ``host:port``. With ``{file_url}`` these are the only ones, but for the host of the
            metadata's API, and ``cdn.donmai.us`` where that is Danbooru's. Over http and https
            nothing else is asked, wherever redirects lead; other stores see to that themselves.
        rate: requests a second and host; 0 for no limit.
        api_rate: likewise, of the metadata's API.
        connections: simultaneous requests, over all workers.
        attempts: tries a picture before it counts as failed.
        timeout: seconds without a byte before a try is given up.
        max_bytes: largest file that is taken.
        max_pixels: largest picture that is taken, by its header.
        check_md5: compare with the record's md5; only right for untouched originals. With
            ``{file_url}``, which names these, it is always compared.
    """

    metadata: str = ""
    images: str = ""
    layout: str = "512px"
    hosts: tuple[str, ...] = ()
    rate: float = 1.0
    api_rate: float = 1.0
    connections: int = 8
    attempts: int = 5
    timeout: float = 30.0
    max_bytes: int = 64 * 2**20
    max_pixels: int = 100_000_000
    check_md5: bool = False

    def __post_init__(self) -> None:
        if self.layout not in ("512px", "original"):
            raise ValueError(f"source.layout: {self.layout!r} is neither '512px' nor 'original'")
        _check_range("source.rate", self.rate, 0, 10_000)
        _check_range("source.api_rate", self.api_rate, 0, 10_000)
        _check_range("source.timeout", self.timeout, 0.001, 3600)
        _check_range("source.connections", self.connections, 1, 1024)
        _check_range("source.attempts", self.attempts, 1, 1000)
        _check_range("source.max_bytes", self.max_bytes, 1, 2**31 - 1)
        _check_range("source.max_pixels", self.max_pixels, 1, 2**31 - 1)

    @property
    def verifies_md5(self) -> bool:
        """Whether an original's bytes must have the md5 that its record gives."""
        return self.check_md5 or self.images == "{file_url}"


@dataclass(frozen=True, slots=True)
class XdogSettings:
    """Of the sketch method ``xdog``: an extended difference of Gaussians.

    Attributes:
        sigma: of the narrow Gaussian, in pixels of the finished size; about the lines' width.
        k: the wide Gaussian's sigma, in narrow ones; 1.6 is the customary value.
        sharpness: weight of the difference (the paper's p); larger draws fainter edges, too.
        threshold: brightness in [-1, 1] from which on there is paper (epsilon). At 0 dark areas
            stay paper; at 0.2 they are filled with ink.
        steepness: how fast ink turns black below the threshold (phi); larger gives harder lines.
    """

    sigma: float = 0.8
    k: float = 1.6
    sharpness: float = 20.0
    threshold: float = 0.0
    steepness: float = 3.0

    def __post_init__(self) -> None:
        _check_range("xdog.sigma", self.sigma, 0.1, 64)
        _check_range("xdog.k", self.k, 1.01, 16)
        _check_range("xdog.sharpness", self.sharpness, 0, 1000)
        _check_range("xdog.threshold", self.threshold, -1, 1)
        _check_range("xdog.steepness", self.steepness, 0.01, 1000)


@dataclass(frozen=True, slots=True)
class OnnxSettings:
    """Of the sketch method ``onnx``: a network of the user's, see ``sketch_onnx.py``.

    Attributes:
        model: path of the ONNX file.
        sha256: of that file; "" takes any, and the effective recipe says which it was.
    """

    model: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class SketchSettings:
    """How a sketch is made of a picture.

    Attributes:
        method: ``dodge``, ``xdog`` or ``onnx``.
        sigma: of dodge's Gaussian blur, in pixels of the finished size; 0 takes the one that
            OpenCV has for the kernel.
        kernel: side of dodge's blur window in pixels, odd; 0 takes all that ``sigma`` reaches.
        xdog: of the method of that name.
        onnx: likewise.
    """

    method: str = "dodge"
    sigma: float = 3.5
    kernel: int = 0
    xdog: XdogSettings = field(default_factory=XdogSettings)
    onnx: OnnxSettings = field(default_factory=OnnxSettings)

    def __post_init__(self) -> None:
        _check_range("sketch.sigma", self.sigma, 0, 256)
        if self.kernel and not (self.kernel % 2 and 0 < self.kernel < 2048):
            raise ValueError(f"sketch.kernel: {self.kernel} is not odd, or not in 0 to 2047")
        if not self.sigma and not self.kernel:
            raise ValueError("sketch: sigma and kernel are both 0, which blurs nothing")


@dataclass(frozen=True, slots=True)
class PrepareSettings:
    """From an original to a sample.

    Attributes:
        letterbox: cut the black bars of the 512px layout away.
        min_side: pixels; a picture with a shorter side after the crop is dropped.
        size: side of the finished square in pixels.
        fit: ``stretch`` (the article's), or ``pad`` with white to keep the proportions.
        jpeg_quality: of the colour member, 1 to 100.
        near_duplicates: bits of 64 in which two perceptual hashes may differ and still show the
            same picture; -1 switches the search off.
        sketch: how the sketch is made.
        sketches: further sketches by name: ``[prepare.sketches.ink]`` gives every sample the
            member ``sketch_ink.png``.
    """

    letterbox: bool = True
    min_side: int = 256
    size: int = 256
    fit: str = "stretch"
    jpeg_quality: int = 95
    near_duplicates: int = 4
    sketch: SketchSettings = field(default_factory=SketchSettings)
    sketches: dict[str, SketchSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.sketches:
            if not is_sketch_name(name):
                raise ValueError(f"prepare.sketches: {name!r} is not a name of a-z, 0-9 and _")
        if self.fit not in ("stretch", "pad"):
            raise ValueError(f"prepare.fit: {self.fit!r} is neither 'stretch' nor 'pad'")
        _check_range("prepare.near_duplicates", self.near_duplicates, -1, 16)
        _check_range("prepare.min_side", self.min_side, 0, 2**31 - 1)
        _check_range("prepare.size", self.size, 16, MAX_SIDE)
        _check_range("prepare.jpeg_quality", self.jpeg_quality, 1, 100)

    @property
    def sketch_members(self) -> dict[str, SketchSettings]:
        """Every sketch by the name of its member, in the order in which they lie in a sample."""
        others = {f"{SKETCH}_{name}": self.sketches[name] for name in sorted(self.sketches)}
        return {SKETCH: self.sketch, **others}

    def map_sketches(
        self, change: Callable[[str, SketchSettings], SketchSettings]
    ) -> "PrepareSettings":
        """Return these settings with each sketch as ``change(member, sketch)`` has it."""
        sketches = {n: change(f"{SKETCH}_{n}", sketch) for n, sketch in self.sketches.items()}
        return replace(self, sketch=change(SKETCH, self.sketch), sketches=sketches)


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """How posts are divided.

    Attributes:
        train, val, test: shares; normalised by their sum.
        by: what is never divided: a ``family`` (parents, children), or a ``character``: families
            with a character tag in common. Posts of many characters tie these together: select
            ``solo`` with it.
        seed: of the hash that decides.
        shard_size: posts a shard at most, about.
    """

    train: float = 0.8
    val: float = 0.1
    test: float = 0.1
    by: str = "family"
    seed: int = 0
    shard_size: int = 1000

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            _check_range(f"split.{name}", getattr(self, name), 0, 1e9)
        if self.train + self.val + self.test <= 0:
            raise ValueError("split: the shares must not all be 0")
        _check_range("split.seed", self.seed, 0, 2**63 - 2)
        _check_range("split.shard_size", self.shard_size, 1, 2**31 - 1)
        if self.by not in ("family", "character"):
            raise ValueError(f"split.by: {self.by!r} is neither 'family' nor 'character'")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a data set holds, and how a model is trained on it.

    ``train`` stays a plain table here: the model side gives it its types.
    """

    name: str
    description: str = ""
    select: SelectSettings = field(default_factory=SelectSettings)
    source: SourceSettings = field(default_factory=SourceSettings)
    prepare: PrepareSettings = field(default_factory=PrepareSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    train: dict[str, Any] = field(default_factory=dict)

    @property
    def min_content_side(self) -> int:
        """Least width and height inside the letterbox of what ``prepare`` keeps, in pixels.

        0 where the bars stay: with them every picture is as large as any other.
        """
        keeps_bars = self.source.layout == "512px" and not self.prepare.letterbox
        return 0 if keeps_bars else self.prepare.min_side


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name}: {value} is not in {least} to {most}")
