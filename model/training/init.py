"""Fine-tuning: a run that begins with another training's weights."""

from pathlib import Path

from model.checkpoint import load_checkpoint, read_sum
from model.config import STYLELESS, TrainConfig
from model.networks.style import StyleNetwork
from model.training.state import TrainState
from model.use.colorize import load_colorizer
from pipeline.errors import UserError


def begin_with(
    checkpoint: Path, state: TrainState, style_network: StyleNetwork, config: TrainConfig
) -> str:
    """Give a run the generator of a checkpoint, and the style network that was trained with it.

    It is the generator to use: the mean over its steps where one was kept. Optimisers, schedule
    and discriminator begin anew, and the pictures may be of another size.

    Returns:
        The checkpoint's sum; see ``checkpoint.read_sum``.

    Raises:
        UserError: on an unusable checkpoint, and on one of another network than the run's.
    """
    _, info = load_checkpoint(checkpoint)
    decisive = ["name", "width_multiplier"]
    if info.model.name == "reference":  # the others have one size, whatever a recipe says of it
        decisive.append("size")
    different = [
        f"train.{name.replace('name', 'model')}={getattr(info.model, name)}"
        for name in decisive
        if getattr(info.model, name) != getattr(config.model_config(), name)
    ]
    if different:
        raise UserError(
            f"{checkpoint}: is of another network than this run's. To begin with it, give "
            f"{' '.join(f'--set {setting}' for setting in different)}."
        )
    trained = info.train.style_train
    if trained and not config.style_train:
        raise UserError(
            f"{checkpoint}: its style network was trained as well; give --style-train to go on "
            "with that one."
        )
    if not trained and info.style.sha256 != style_network.provenance.sha256:
        raise UserError(
            f"{checkpoint}: was trained with {info.style}, and this run has "
            f"{style_network.provenance}. Give the same --style-weights."
        )
    is_given = not trained and config.model not in STYLELESS
    style_weights = config.style_weights if is_given else ""
    colorizer, _ = load_colorizer(checkpoint, device="cpu", style_weights=style_weights)
    weights = colorizer.generator.state_dict()
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise UserError(f"{checkpoint}: its weights are not all finite numbers; take another one.")
    state.generator.load_state_dict(weights)
    if state.ema is not None:
        state.ema.load_state_dict(weights)
    if trained:
        style_network.load_state_dict(colorizer.style_network.state_dict())
    return read_sum(checkpoint)
