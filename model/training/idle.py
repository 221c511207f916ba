"""Settings of ``[train]`` that others of it leave without effect, in words."""

from model.config import STYLELESS, TrainConfig, train_config


def idle_settings(config: TrainConfig, has_pairs: bool = True) -> list[str]:
    """Return a sentence for each setting that was changed and has no effect in this run.

    A setting that is switched off, or as its model has it by default, promises none.

    Args:
        config: of the run.
        has_pairs: whether any of its samples has another drawing of its character.
    """
    has_style = config.model not in STYLELESS
    has_random = has_style and config.style_weights == "random"
    has_color_guide = config.model in ("zhang2017", "reference")
    needs = (
        ("size", config.model == "reference", "the model reference"),
        ("style_weights", has_style, "a model that has a style network"),
        ("style_seed", has_random, "a style network of random weights"),
        ("patch_weight feature_weight", config.gan == "patch", "train.gan=patch"),
        ("alpha", config.model == "zhang2017", "the model zhang2017"),
        ("beta", has_color_guide, "the model zhang2017 or reference"),
        ("alpha beta chroma_weight", config.l1_weight > 0, "train.l1_weight above 0"),
        ("contrast", config.chroma_weight > 0, "train.chroma_weight above 0"),
        ("bend", config.jitter > 0, "train.jitter above 0"),
        ("reframe", config.warp, "train.warp=true"),
        ("pairs", has_pairs, "two drawings of one character among the training samples"),
    )
    default = train_config({"model": config.model}, "")
    return [
        f"train.{name}={value} does nothing here: it needs {needed}."
        for names, is_met, needed in needs
        for name in names.split()
        if not is_met and (value := getattr(config, name)) not in (0, getattr(default, name))
    ]
