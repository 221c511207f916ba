"""Training, top to bottom: samples, networks, resume, loop."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from model.checkpoint import CheckpointInfo
from model.config import STYLELESS, TrainConfig
from model.data.augment import augment_batch
from model.data.epochs import iterate_steps, order_of, windows_of
from model.data.features import StyleFeatures
from model.data.pairs import Partners
from model.data.samples import Samples, iterate_batches, to_unit
from model.data.shards import Shards
from model.device import memory_guard, pick_device, settle
from model.evaluation.remarks import remarks
from model.networks.discriminator import Discriminator
from model.networks.style import StyleNetwork, build_style_network
from model.ranks import join_ranks
from model.training.idle import idle_settings
from model.training.init import begin_with
from model.training.journal import Journal
from model.training.rundir import Checkpoints, claim, go_on_from, load_last, write_config
from model.training.state import TrainState
from model.training.steps import training_step
from model.training.stopping import stop_on_signal
from model.training.validation import (
    check_best_by,
    criterion,
    draw_samples,
    validate,
    validation_marks,
)
from model.use.colorize import Colorizer
from pipeline.console import PlainConsole
from pipeline.errors import UserError
from pipeline.progress import show_progress
from pipeline.settings import Table, name_differences
from pipeline.words import counted

NUM_STYLE_SAMPLES = 512
"""Training pictures from which mean and deviation of the style vectors are taken."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run stands.

    Attributes:
        step: optimiser steps done, over all legs.
        best: lowest ``criterion`` so far, None before the first validation.
        finished: whether all epochs are done; otherwise it was stopped, and can be resumed.
    """

    step: int
    best: float | None
    finished: bool


def train(
    config: TrainConfig,
    shards: Path | Shards,
    run_dir: Path,
    *,
    style_dir: Path | None = None,
    recipe: Table | None = None,
    init: Path | None = None,
    resume: bool = False,
    max_steps: int | None = None,
    console: Console | None = None,
) -> TrainResult:
    """Train a model on prepared samples.

    Each picture is its own reference (the article's self-reference), unless ``config`` jitters,
    warps, pairs or drops it. ``run_dir`` gets ``best.safetensors`` (the generator that was best on
    the validation set by ``config.best_by``), ``last.safetensors`` (everything, to resume from) and
    the one before it as ``previous.safetensors``, a JSON beside each, ``config.json``,
    ``log.jsonl``, TensorBoard events, and a grid of samples for each validation. Style features are
    kept in ``style_dir``. Ctrl-C and SIGTERM stop after the step under way, and save; a second
    Ctrl-C stops at once. Under torchrun the processes train together: each batch is divided among
    them, and the first one writes.

    Args:
        config: the settings.
        shards: folder of prepared shards, or shards that are elsewhere.
        run_dir: folder of the run.
        style_dir: where style features are kept; ``style`` beside the folder of shards if None,
            and nowhere for shards that are elsewhere.
        recipe: what the caller goes by: where the samples were prepared otherwise, that is said.
            Checkpoints keep the samples' own.
        init: checkpoint to begin with; see ``training.init``. A run that is resumed has begun.
        resume: go on from ``last.safetensors`` where there is one, exactly as if never stopped.
        max_steps: stop, as Ctrl-C does, after so many steps of this call; None for no limit.
        console: where to speak; standard output if None.

    Raises:
        UserError: on unusable samples, settings, weights or run folder, where these are not the
            same for all processes, when memory is full, and when a loss is not finite.
    """
    with join_ranks(config.device, config.batch_size) as ranks, ExitStack() as stack:
        console = (console or PlainConsole(stderr=False)) if ranks.is_first else Console(quiet=True)
        device = pick_device(config.device)
        # A run that goes on elsewhere must not change its precision unseen.
        config = settle(config, device, ranks.world_size)
        memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")

        sketches = config.sketches or (config.sketch,)
        train_set = stack.enter_context(Samples(shards, "train", *sketches))
        val_set = stack.enter_context(Samples(shards, "val", config.sketch))
        steps_per_epoch = count_steps(train_set, val_set, config)
        val_set.keep()
        if ranks.is_first:
            stack.enter_context(claim(run_dir))
        resumed = load_last(
            run_dir, config, train_set.fingerprint, steps_per_epoch, console, resume=resume
        )
        if resumed is None:
            train_set.expect(windows_of(train_set, config, 0))  # and so what is kept comes as well
            check_best_by(val_set, config)
        then, now = (table.get("prepare", {}) for table in (train_set.recipe, recipe or {}))
        if then and now and (odd := name_differences(then, now, "the samples'", "prepare.")):
            console.print(
                f"the samples are not as the recipe says: {'; '.join(odd)}. They are taken as they "
                "are."
            )
        has_pairs = config.pairs > 0 and Partners(train_set).paired.size > 0
        for sentence in idle_settings(config, has_pairs):
            console.print(sentence)
        in_parts = f"train.accumulate={2 * config.accumulate}" if config.can_accumulate() else ""
        stack.enter_context(memory_guard("train.batch_size", config.batch_size, in_parts))

        state = TrainState.build(config, device, ranks)
        spec = state.generator.style_spec
        style_network = build_style_network(
            spec.network,
            normalised=spec.normalised,
            weights=config.style_weights,
            seed=config.style_seed,
        ).to(device)
        console.print(f"style network: {style_network.provenance}")
        if config.style_train:
            state.train_style(style_network, config, ranks)
        has_style = config.model not in STYLELESS
        can_cache = config.cache_style and has_style and not config.style_train
        if style_dir is None and isinstance(shards, Path):
            style_dir = shards.parent / "style"
        cache_dir = style_dir if can_cache else None
        live = state.parallel.get("style", style_network)
        stays = config.is_self_reference() and not config.mirror  # what a style is computed from
        features = StyleFeatures(style_network, train_set, cache_dir if stays else None)
        val_features = StyleFeatures(style_network, val_set, cache_dir)
        stack.callback(features.close)
        stack.callback(val_features.close)

        if resumed is not None:
            began_with = resumed.info.init
            go_on_from(resumed, run_dir, state, style_network, init)
        else:
            began_with = begin_with(init, state, style_network, config) if init is not None else ""
            if isinstance(state.discriminator, Discriminator) and not config.style_train:
                vectors = some_style_vectors(train_set, config, features, style_network, device)
                state.discriminator.fit_style(vectors)
        checkpoints = Checkpoints(
            run_dir,
            CheckpointInfo(
                model=config.model_config(),
                train=config,
                size=train_set.size,
                style=style_network.provenance,
                samples=train_set.fingerprint,
                step=0,
                epoch=0,
                position=0,
                recipe=train_set.recipe,
                init=began_with,
            ),
            last_is_damaged=resumed is not None and resumed.last_is_damaged,
        )
        del resumed
        # DDP compares no more than shapes: each process would go its own way, and nobody be told.
        if not ranks.agree(checkpoints.about, val_set.fingerprint, state.step):
            raise UserError(
                f"{run_dir}: the processes of this training do not begin alike. All need the same "
                "settings, samples, weights and libraries, and a run folder that all of them see."
            )
        if config.compile:
            console.print("the first steps are slow: torch.compile takes a minute or more.")
        total_steps = steps_per_epoch * config.epochs
        if ranks.is_first:
            num_parameters = state.count_parameters()
            write_config(run_dir, config, train_set.recipe, num_parameters, total_steps)

        journal = Journal(run_dir, state.step, config.log_every, ranks, config.precision)
        stack.callback(journal.close)
        colorizer = Colorizer(state.shown, style_network, device)
        marks = validation_marks(steps_per_epoch, config.epochs, config.validations_per_epoch)
        state.schedule(config, total_steps)
        last_step = total_steps if max_steps is None else min(total_steps, state.step + max_steps)
        said: list[str] = []  # remarks of the last validation, which are not repeated
        stopping = stack.enter_context(stop_on_signal())
        show = stack.enter_context(
            show_progress(console, f"{config.model}, steps", total_steps, state.step)
        )

        for epoch, position, batch, waited in iterate_steps(
            train_set, config, ranks, state.epoch, state.position, pin=device.type == "cuda"
        ):
            sketch, color, reference = augment_batch(batch, config, epoch, device, memory_format)
            style = live(reference) if config.style_train else features(batch, reference)
            vector = None
            if isinstance(state.discriminator, Discriminator):
                vector = style_network.vector(style.detach())
                if config.style_train:  # their mean and deviation change with every step
                    state.discriminator.fit_style(vector, ranks)
            scale = ranks.loss_scale(config.batch_size)
            terms = training_step(state, config, color, sketch, style, vector, autocast, scale)
            state.advance(config, epoch, position)
            journal.record(state.step, epoch, position, terms, len(batch.indices), waited)
            show(state.step, journal.note)

            stop = ranks.any(stopping.is_set()) or state.step == last_step
            is_due = state.step in marks
            if not (is_due or stop):
                continue
            journal.flush()
            if is_due:
                state.metrics = validate(colorizer, val_set, val_features, config, autocast, ranks)
                score = criterion(state.metrics, config.best_by)
                if state.best is None or score < state.best:
                    state.best = score
                    if ranks.is_first:
                        checkpoints.keep_best(state)
                journal.validation(state.metrics, draw_samples(colorizer, val_set, config))
            features.flush()
            val_features.flush()
            if ranks.is_first:
                checkpoints.keep_last(state)
            if is_due:
                console.print(_describe(state, config))
                found = remarks(state.metrics | journal.terms)
                for name in [name for name in found if name not in said]:
                    console.print(found[name])
                said = list(found)
            if stop:
                break
            journal.restart_clock()
        return TrainResult(state.step, state.best, state.step == total_steps)


def some_style_vectors(
    samples: Samples,
    config: TrainConfig,
    features: StyleFeatures,
    style_network: StyleNetwork,
    device: torch.device,
) -> Tensor:
    """Return the style vectors of the first ``NUM_STYLE_SAMPLES`` of a run, N x style size."""
    order = order_of(samples, config, 0)[:NUM_STYLE_SAMPLES]
    batches = iterate_batches(samples, order, config.batch_size)
    with torch.no_grad():
        vectors = [style_network.vector(features(b, to_unit(b.color, device))) for b in batches]
    return torch.cat(vectors)


def count_steps(samples: Samples, val_set: Samples, config: TrainConfig) -> int:
    """Return the steps of an epoch; a last batch that is not full is left out.

    Raises:
        UserError: where not even one batch is full, the pictures' size fits no generator, or those
            of the validation set have another.
    """
    height, width = samples.size
    if val_set.size != samples.size:
        raise UserError(
            f"the training pictures are {samples.size}, and those of the validation set are "
            f"{val_set.size} (height, width). Run prepare again, to its end."
        )
    if height % 32 or width % 32 or min(height, width) < 64:
        raise UserError(
            f"the samples are {width} x {height} pixels, and models take multiples of 32 from 64 "
            "on. Prepare them anew, for instance with --set prepare.size=256."
        )
    if len(samples) < config.batch_size:
        samples_do = counted(len(samples), "training sample does", "training samples do")
        raise UserError(
            f"{samples_do} not fill a batch of {config.batch_size}: "
            f"--set train.batch_size={len(samples)} or less, or prepare more."
        )
    return len(samples) // config.batch_size


def _describe(state: TrainState, config: TrainConfig) -> str:
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in state.metrics.items())
    return f"epoch {state.epoch + 1}/{config.epochs}, step {state.step}: {metrics}"
