"""One reference setting of an evaluation: every measure for every answer, and its sheet."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from model.config import EvalConfig
from model.data.samples import Batch, Samples, iterate_batches
from model.evaluation.baselines import reduce_pictures
from model.evaluation.fid import extract_features, fid, kid
from model.evaluation.metrics import Answer
from model.evaluation.scenes import Scene
from model.evaluation.seen import Seen
from model.evaluation.tally import NEEDS_TRUTH, Tally
from model.grid import Sheet, tile
from pipeline.planning.families import join_characters
from pipeline.progress import show_progress


def judge(
    scene: Scene,
    samples: Samples,
    answers: Mapping[str, Answer],
    follows: Mapping[str, tuple[float | None, list[float] | None]],
    config: EvalConfig,
    extractor: FeatureExtractorBase | None,
    lpips: nn.Module | None,
    console: Console,
) -> tuple[dict[str, Any], pa.Table]:
    """Judge answers, ``model`` and the baselines by name, in one setting.

    Each one's ``following`` with its interval, in ``follows``, is the same in all settings.

    Returns:
        What ``metrics.json`` says of it, and the model's figures for each picture.
    """
    tallies = {name: Tally(lpips, extractor) for name in answers}
    real: list[Tensor] = []
    judged = scene.pairs if scene.has_truth or extractor is not None else scene.pairs[:0]
    num_judged = 0
    with show_progress(console, f"eval {scene.name}, pictures", len(judged)) as show:
        for batch in iterate_batches(
            samples, judged, config.batch_size, num_threads=config.decode_threads
        ):
            truth, reference = scene.truth_and_references(batch)
            truth = reduce_pictures(truth, config.reduce)
            seen = Seen(truth) if scene.has_truth else None
            for name, answer in answers.items():
                output = answer(batch.sketch, reference)
                tallies[name].add(output, seen)
            if extractor is not None:
                real.append(extract_features(extractor, truth))
            num_judged += len(batch.indices)
            show(num_judged)
    clusters = join_characters(samples.families, samples.characters)[scene.pairs[:, 0]]
    results: dict[str, dict[str, Any]] = {
        name: {
            **tally.summary(),
            "following": follows[name][0],
            **_fid_and_kid(real, tally.features, config.seed),
            "intervals": tally.intervals(clusters, config.seed) | {"following": follows[name][1]},
        }
        for name, tally in tallies.items()
    }
    block: dict[str, Any] = {
        "reference": scene.name,
        **({"file": scene.file} if scene.file else {}),
        "num_samples": len(scene.pairs),
        "num_clusters": len(np.unique(clusters)),
        **results.pop("model"),
        "baselines": results,
    }
    reasons = _reasons(extractor, scene.has_truth)
    block["unavailable"] = {n: reasons[n] for n in reasons if block[n] is None}
    post_ids, reference_ids = samples.post_ids[scene.pairs].T
    table = pa.table(
        {
            "setting": pa.array([scene.name] * len(post_ids)).dictionary_encode(),
            "post_id": post_ids,
            "reference_id": pa.nulls(len(post_ids), pa.int64())
            if scene.picture is not None
            else pa.array(reference_ids),
            "cluster": clusters,
            **tallies["model"].columns(),
        }
    )
    return block, table


def draw(scene: Scene, shown: Batch, answer: Answer) -> Sheet:
    """Return a sheet of samples: sketch, reference, output, and the truth where there is one."""
    truth, reference = scene.truth_and_references(shown)
    output = answer(shown.sketch, reference)
    columns = {"sketch": shown.sketch, "reference": reference, "output": output}
    return tile(columns | ({"truth": truth} if scene.has_truth else {}))


def _fid_and_kid(real: list[Tensor], found: list[Tensor], seed: int) -> dict[str, float | None]:
    num_pictures = sum(len(features) for features in real)
    if num_pictures < 2:
        return {"fid": None, "kid": None}
    a, b = torch.cat(real), torch.cat(found)
    return {"fid": fid(a, b), "kid": kid(a, b, seed)}


def _reasons(extractor: FeatureExtractorBase | None, has_truth: bool) -> dict[str, str]:
    """Say why a measure is null where it is."""
    inception = "no Inception weights: give --fid-weights PATH"
    if extractor is not None:
        inception = "needs at least two pictures"
    no_truth = dict.fromkeys(NEEDS_TRUTH, "another picture's colours have no true answer")
    return {
        "lpips": "no AlexNet weights: give --lpips-weights PATH",
        "chroma_error": "the true pictures have no colour",
        "regional_error": "the true pictures have no colour",
        "paper_error": "the true pictures have no white paper",
        **({} if has_truth else no_truth),
        "following": "the references all have one palette",
        "fid": inception,
        "kid": inception,
    }
