"""What to build, how to train it, how to judge it: frozen dataclasses, checked when made.

``pipeline.settings.convert`` builds them from tables. Without any setting they describe the
article's run of its first model. Imports no torch.
"""

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.settings import Table, convert
from pipeline.words import did_you_mean

MODELS = ("zhang2017", "batchnorm", "inception", "reference")
STYLELESS = ("reference",)
"""Of these the models that have no style network."""
SIZES = ("small", "medium", "base")
GANS = ("acgan", "paper", "patch", "none")
PRECISIONS = ("auto", "fp32", "bf16")
SCHEDULES = ("constant", "cosine")
REFERENCES = ("self", "same", "character", "any")
MAX_GUIDANCE = 3.0
"""Beyond it colours only burn out."""

CRITERIA = ("mse", "chroma_error", "regional_error", "paper_error", "following")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    known = ", ".join(choices)
    _check(value in choices, f"{name}: {value!r}{did_you_mean(value, choices)} is none of {known}")


def _check_seed(name: str, seed: int) -> None:
    _check(0 <= seed < 2**63, f"{name}: {seed} is not in 0 to 2**63 - 1")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything needed to build a generator with its style network again.

    Attributes:
        name: of the generator, out of ``MODELS``.
        width_multiplier: factor on every number of channels; 1.0 is the article's network.
        style_weights: of the frozen style network: ``imagenet``, ``random``, or the path of a
            torchvision state dict (.pth or .safetensors). ``reference`` has no style network.
        style_seed: of ``random`` style weights.
        size: of ``reference``: ``small`` for 64 pixels, ``medium`` for 128, ``base`` for 256.
    """

    name: str = "zhang2017"
    width_multiplier: float = 1.0
    style_weights: str = "imagenet"
    style_seed: int = 0
    size: str = "small"

    def __post_init__(self) -> None:
        _check_choice("train.model", self.name, MODELS)
        width = self.width_multiplier
        _check(0 < width <= 4, f"train.width_multiplier: {width} is not above 0 and up to 4")
        _check_choice("train.size", self.size, SIZES)
        _check(self.style_weights != "", "train.style_weights: give imagenet, random, or a path")
        _check_seed("train.style_seed", self.style_seed)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The recipe's ``[train]`` table.

    Attributes:
        model, width_multiplier, style_weights, style_seed, size: see ``ModelConfig``.
        gan: ``acgan`` (source and style head), ``paper`` (one output as wide as the style
            vector), ``patch`` (a hinge loss for each patch, beside the sketch), or ``none``.
        patch_weight: of the hinge loss of ``patch`` on the generator.
        feature_weight: of its feature matching.
        batch_size: samples a step, over all processes.
        accumulate: parts of a process's samples that a step takes one after the other, for want of
            memory: their gradients add up to the batch's. Needs gan = "none", as an adversary has
            to learn from the whole batch first, and a frozen style network. BatchNorm sees one
            part at a time.
        sketch: the samples' member to colour: ``sketch``, or ``sketch_NAME`` where the recipe has
            ``[prepare.sketches.NAME]``. Evaluation takes the same.
        sketches: members as above, of which training takes one at random for each sample, anew in
            each epoch, so that a model knows several kinds of lines; one that is named twice is
            taken twice as often. () for ``sketch`` alone.
        epochs: passes over the training set.
        validations_per_epoch: how often the validation set is measured, and a checkpoint written;
            0.1 is once in ten epochs. At most once a step: in an epoch of three steps 6 is 3. The
            last step is always followed by a validation.
        lr, betas, weight_decay: of AdamW, for all networks; without decay it is Adam.
        muon_lr: learning rate of Muon, which takes the generator's hidden kernels over from AdamW;
            see ``training.muon``. 0 for AdamW alone.
        schedule: of the learning rate: ``constant``, or ``cosine``, falling to 0 at the end.
        warmup_steps: in which the learning rate rises from 0 on; 0 for none.
        clip_norm: largest norm of a network's gradient, which is scaled down to it; 0 for none.
        ema: decay of the exponential moving average of the generator's weights, such as 0.999,
            and less in the first steps (``training.state.mean_decay``); the average is what is
            validated and kept as best. 0 for none.
        style_train: train the style network as well (its features are then computed each time).
        l1_weight: the lambda on all L1 terms; at 0 the adversary alone teaches. The paper and the
            article never state theirs; 100 is the customary weight of an L1 term beside an
            adversary (pix2pix).
        alpha: weight of the grey guide's L1 term.
        beta: weight of the colour guide's L1 term; the guide of ``reference`` is what its
            attention found.
        chroma_weight: weight of the L1 term on chroma alone, beside the 1 of the whole picture's.
        contrast: extra weight in it of pixels that stand out; see ``losses.chroma_terms``.
        jitter: share of the samples whose colours are changed, 0 to 1; see ``augment``.
        bend: how far hues are turned by angles of their own; see ``augment.jitter_colors``.
        drop_reference: share of the samples whose reference is a white sheet, 0 to 1; guidance
            needs a model that was trained so.
        warp: warp each reference, so that its pixels are not where those of the sketch are.
        reframe: largest additional scaling of a reference, in octaves; see ``augment.warp``.
        vary_lines: share of the sketches whose lines are changed; see ``augment.vary_lines``.
        mirror: share of the samples whose sketch and picture are mirrored, 0 to 1.
        pairs: share of the samples whose reference is another drawing of their character, 0 to 1.
        best_by: what the kept checkpoint is best by: ``mse``, ``chroma_error``,
            ``regional_error``, ``paper_error``, or ``following`` (the nearest to 1), on the
            validation set.
        seed: of initial weights, of the order of the samples, and of what becomes of each.
        shuffle_shards: shards whose samples an epoch shuffles together. Which samples share a
            shard is random already, so little is lost. With ``--shards`` a cache that holds twice
            as many shards is enough for training not to wait.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1``, ...
        precision: ``fp32``, ``bf16`` for mixed precision, or ``auto``: bf16 where the device is
            faster with it. What ``auto`` means here and below, ``device.settle`` decides.
        compile: compile generator and discriminator with torch.compile, which takes a minute or
            more; ``auto``: where that was measured to be worth it.
        channels_last: lay activations out channels-last; ``auto``: as ``compile``.
        cache_style: compute each picture's style features once, and keep them beside the samples.
        decode_threads: threads that decode pictures.
        log_every: steps between two lines of the log.
        num_chroma: samples of the chroma errors at each validation.
        num_following: sketches, and references, of the following measure at each validation.
        num_grid: samples shown in the grid at each validation.
    """

    model: str = "zhang2017"
    width_multiplier: float = 1.0
    style_weights: str = "imagenet"
    style_seed: int = 0
    size: str = "small"
    gan: str = "acgan"
    patch_weight: float = 0.02
    feature_weight: float = 0.2
    batch_size: int = 32
    accumulate: int = 1
    sketch: str = "sketch"
    sketches: tuple[str, ...] = ()
    epochs: int = 10
    validations_per_epoch: float = 6
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    muon_lr: float = 0.0
    schedule: str = "constant"
    warmup_steps: int = 0
    clip_norm: float = 0.0
    ema: float = 0.0
    style_train: bool = False
    l1_weight: float = 100.0
    alpha: float = 0.3
    beta: float = 0.9
    chroma_weight: float = 0.0
    contrast: float = 0.0
    jitter: float = 0.0
    bend: float = 0.0
    drop_reference: float = 0.0
    warp: bool = False
    reframe: float = 0.0
    vary_lines: float = 0.0
    mirror: float = 0.0
    pairs: float = 0.0
    best_by: str = "mse"
    seed: int = 0
    shuffle_shards: int = 16
    device: str = "auto"
    precision: str = "auto"
    compile: bool | Literal["auto"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    cache_style: bool = True
    decode_threads: int = 2
    log_every: int = 20
    num_chroma: int = 256
    num_following: int = 8
    num_grid: int = 8

    def __post_init__(self) -> None:
        self.model_config()
        _check_choice("train.gan", self.gan, GANS)
        _check_choice("train.precision", self.precision, PRECISIONS)
        _check_choice("train.schedule", self.schedule, SCHEDULES)
        _check_choice("train.best_by", self.best_by, CRITERIA)
        numbers = ("batch_size", "accumulate", "epochs", "decode_threads", "num_chroma", "num_grid")
        for name in (*numbers, "shuffle_shards", "log_every"):
            _check(getattr(self, name) >= 1, f"train.{name}: {getattr(self, name)} is under 1")
        num = self.validations_per_epoch
        _check(0 < num <= 1000, f"train.validations_per_epoch: {num} is not above 0 and up to 1000")
        _check(self.num_following >= 2, f"train.num_following: {self.num_following} is under 2")
        weights = ("l1_weight", "alpha", "beta", "chroma_weight", "patch_weight", "feature_weight")
        others = ("contrast", "bend", "reframe", "weight_decay", "warmup_steps", "clip_norm")
        for name in (*weights, *others, "muon_lr", "lr"):
            value = getattr(self, name)
            wrong = "negative" if value < 0 else "not finite"  # of which JSON keeps nothing
            _check(0 <= value < math.inf, f"train.{name}: {value} is {wrong}")
        of_adversary = {"none": 0.0, "patch": self.patch_weight + self.feature_weight}
        nothing = "train.l1_weight: at 0 there is nothing to learn, as no adversary has a weight"
        _check(self.l1_weight + of_adversary.get(self.gan, 1.0) > 0, nothing)
        _check_seed("train.seed", self.seed)
        _check(0 <= self.ema < 1, f"train.ema: {self.ema} is not in [0, 1)")
        if self.style_train:
            none = f"train.style_train: the model {self.model!r} has no style network to train"
            _check(self.model not in STYLELESS, none)
            frozen = "train.ema: is of the generator alone, and goes with a frozen style network"
            _check(not self.ema, frozen)
        alone = 'train.accumulate: above 1 it needs gan = "none" and a frozen style network'
        _check(self.accumulate == 1 or self.can_accumulate(), alone)
        for name in ("jitter", "vary_lines", "mirror", "pairs", "drop_reference"):
            share = getattr(self, name)
            _check(0 <= share <= 1, f"train.{name}: {share} is not in 0 to 1")
        _check(self.lr > 0, f"train.lr: {self.lr} is not above 0")
        _check(all(0 <= b < 1 for b in self.betas), f"train.betas: {self.betas} are not in [0, 1)")

    def model_config(self) -> ModelConfig:
        """Return the part that decides what is built."""
        return ModelConfig(
            self.model, self.width_multiplier, self.style_weights, self.style_seed, self.size
        )

    def can_accumulate(self) -> bool:
        """Return whether the generator alone learns, whose steps can be taken in parts."""
        return self.gan == "none" and not self.style_train

    def is_self_reference(self) -> bool:
        """Return whether each picture is its own reference, untouched: the article's way."""
        return not (self.jitter or self.pairs or self.warp or self.drop_reference)


DEFAULTS: dict[str, Table] = {
    "reference": {
        "gan": "none",
        "batch_size": 16,
        "lr": 3e-4,
        "betas": [0.5, 0.999],
        "weight_decay": 0.01,
        "l1_weight": 1.0,
        "chroma_weight": 1.25,
        "contrast": 3.0,
        "jitter": 0.8,
        "bend": 1.0,
        "drop_reference": 0.1,
        "warp": True,
        "pairs": 0.4,
        "best_by": "chroma_error",
    }
}
"""Where a model's defaults differ from ``TrainConfig``'s, which are those of the article."""


def train_config(table: Table, where: str) -> TrainConfig:
    """Return the settings of a run: its model's defaults, and over them what ``table`` says.

    Args:
        table: the recipe's ``[train]`` with what else was given.
        where: it comes from, for the error's text.

    Raises:
        UserError: on an unknown key, or a value that may not be.
    """
    model = table.get("model", TrainConfig().model)
    return convert(DEFAULTS.get(str(model), {}) | table, TrainConfig, where)


@dataclass(frozen=True, slots=True)
class EvalConfig:
    """How a checkpoint is judged.

    Attributes:
        batch_size: samples at once.
        reference: settings to judge in, one or more: ``self``, each picture after itself, as the
            article's models are trained; ``same``, each in other colours and after itself warped
            (``augment.same_reference``); ``character``, each after another post of its character
            (samples without one are left out); ``any``, each after any other picture, which has
            no true answer; or the path of a picture, all after that one.
        num_sketches, num_references: of the following measure: every one of these sketches is
            coloured after every one of these references.
        guidance: how far references are followed; see ``colorize.Colorizer``.
        reduce: measure pictures of 1/``reduce`` the sides, each pixel the mean of a square of
            pixels, to compare models of different sizes; grids stay as painted.
        num_grid: samples shown in grid.png.
        fid_weights: path of torch-fidelity's Inception weights for FID and KID; "" for none.
        lpips_weights: path of torchvision's AlexNet weights for LPIPS; "" for none.
        sketch: the samples' member to colour; "" for the one that the model was trained on.
        style_weights: path of the style network's weights where they are not found again as the
            checkpoint names them; "" to take the checkpoint's word.
        seed: of the choice of sketches and references, of the colours and bends of ``same``, of
            intervals, and of KID's subsets.
        device: as in ``TrainConfig``.
        decode_threads: threads that decode pictures.
    """

    batch_size: int = 32
    reference: tuple[str, ...] = ("self",)
    num_sketches: int = 16
    num_references: int = 16
    guidance: float = 1.0
    reduce: int = 1
    num_grid: int = 8
    fid_weights: str = ""
    lpips_weights: str = ""
    sketch: str = ""
    style_weights: str = ""
    seed: int = 0
    device: str = "auto"
    decode_threads: int = 2

    def __post_init__(self) -> None:
        names = self.reference
        _check(len(names) > 0, "eval.reference: name one setting at least")
        _check(len(set(names)) == len(names), f"eval.reference: {', '.join(names)} has one twice")
        for name in ("batch_size", "num_sketches", "reduce", "num_grid", "decode_threads"):
            _check(getattr(self, name) >= 1, f"eval.{name}: {getattr(self, name)} is under 1")
        beyond = f"eval.guidance: {self.guidance} is not in 0 to {MAX_GUIDANCE:g}"
        _check(0 <= self.guidance <= MAX_GUIDANCE, beyond)
        _check(self.num_references >= 2, f"eval.num_references: {self.num_references} is under 2")
        _check_seed("eval.seed", self.seed)
