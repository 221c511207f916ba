"""Who a doll is, how it stands, and its colours: three things that do not touch.

Every trait goes by Danbooru's tag for it, so that a doll's traits are its record's tags.
"""

from dataclasses import dataclass

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Character:
    """What stays the same in every picture of a doll, colours apart.

    Attributes:
        hair: out of ``hair.HAIR``.
        fringe: out of ``hair.FRINGES``.
        sidelocks: out of ``hair.SIDELOCKS``.
        ahoge: whether a loose strand stands up.
        eyes: out of ``face.EYES``.
        outfit: out of ``outfits.OUTFITS``.
        legwear: out of ``drawing.LEGWEAR``.
        headwear: out of ``headwear.HEADWEAR``.
        glasses: whether it wears any.
    """

    hair: str
    fringe: str
    sidelocks: str
    ahoge: bool
    eyes: str
    outfit: str
    legwear: str
    headwear: str
    glasses: bool


@dataclass(frozen=True, slots=True)
class Backdrop:
    """What is behind a doll in one picture, its colours apart.

    Attributes:
        kind: out of ``backdrops.BACKDROPS``.
        scale: of a pattern; 1 is the usual one.
        angle: of a pattern, degrees clockwise; its sign says on which side a window is.
        shift: of a pattern or a horizon, -0.3 to 0.3 of half the picture's longer side.
        outlined: whether it has lines.
    """

    kind: str = "white_background"
    scale: float = 1.0
    angle: float = 0.0
    shift: float = 0.0
    outlined: bool = False

    @property
    def ink(self) -> float | None:
        """Width of its outlines, in plain lines; None without any."""
        return 0.8 if self.outlined else None


@dataclass(frozen=True, slots=True)
class Pose:
    """How a doll is shown in one picture.

    Attributes:
        framing: out of ``drawing.FRAMINGS``: how much of it is in the picture.
        zoom: 1 fits the framing into the picture.
        shift: right and down, in shares of the picture.
        flip: mirrored.
        tilt: of the head, degrees clockwise.
        lean: of the whole body, degrees clockwise.
        turn: of the face to the right, -0.35 to 0.35.
        nod: of the face down, -0.15 to 0.15.
        gaze: of the eyes right and down, -1 to 1.
        eyelids: out of ``face.EYELIDS``.
        brows: out of ``face.BROWS``.
        mouth: out of ``face.MOUTHS``.
        blush: whether the cheeks are red.
        arms: left and right in the picture before ``flip``, out of ``drawing.ARMS``.
        stride: -1 to 1; how far the legs stand apart, and which one is lifted.
        wind: -1 to 1; blows the hair.
        backdrop: what is behind it.
    """

    framing: str
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    flip: bool = False
    tilt: float = 0.0
    lean: float = 0.0
    turn: float = 0.0
    nod: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)
    eyelids: str = ""
    brows: str = ""
    mouth: str = "smile"
    blush: bool = True
    arms: tuple[str, str] = ("arm_at_side", "arm_at_side")
    stride: float = 0.0
    wind: float = 0.0
    backdrop: Backdrop = Backdrop()


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a picture, RGB of 0 to 255 each; shade, gloss and blush follow from them.

    ``paper`` and ``scenery`` are its backdrop's, the others its doll's.
    """

    hair: Color
    eyes: Color
    skin: Color
    clothes: Color
    accent: Color
    accessory: Color
    paper: Color = (255, 255, 255)
    scenery: Color = (238, 238, 242)
