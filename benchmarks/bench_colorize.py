"""colorize: milliseconds a picture once the model is loaded, and how long loading takes.

    python -m benchmarks.bench_colorize [MODEL ...] [--repeats 9] [--threads 2] [--sides 256 2048]

MODEL is a checkpoint or an exported ONNX file. Without any, ``reference`` in both sizes, from both
kinds of file, and ``zhang2017`` are taken with their first weights, at 256 px: weights decide
colours, not times. What is timed is all that happens to a decoded sketch of so many pixels a side,
after a reference that is new each time.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model.checkpoint import CheckpointInfo, save_checkpoint
from model.config import TrainConfig
from model.networks.style import build_style_network
from model.training.state import TrainState
from model.use.export import export
from model.use.load import load_painter
from model.use.painter import Painter
from pipeline.dolls.data_set import make_dolls, picture_of
from pipeline.pictures.sketch import dodge


def write_untrained(path: Path, model: str, size: str) -> Path:
    config = TrainConfig(model=model, size=size, style_weights="random", gan="none")
    state = TrainState.build(config, torch.device("cpu"))
    spec = state.generator.style_spec
    style = build_style_network(spec.network, normalised=spec.normalised, weights="random")
    info = CheckpointInfo(
        config.model_config(), config, (256, 256), style.provenance, "", step=0, epoch=0, position=0
    )
    save_checkpoint(path, state.generator_tensors(), info)
    return path


def time_painting(painter: Painter, side: int, repeats: int) -> list[tuple[float, float]]:
    """Return milliseconds a picture, by the clock and of CPU, the first ones left out."""
    drawings = [Image.fromarray(picture_of(doll)) for doll in make_dolls(4, 1)]
    lines = [Image.fromarray(dodge(np.asarray(d.resize((side, side))), 3.5)) for d in drawings]
    times = []
    for number in range(repeats + 2):
        sketch, drawing = lines[number % 4], drawings[(number + 1) % 4]
        started, cpu = time.perf_counter(), time.process_time()
        painter.paint(sketch, painter.look_at(drawing, "doll"))
        times.append(((time.perf_counter() - started) * 1e3, (time.process_time() - cpu) * 1e3))
    return times[2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sides", type=int, nargs="+", default=(256, 2048))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        models = {str(path): path for path in options.models}
        if not models:
            kinds = [("reference", "small"), ("reference", "base"), ("zhang2017", "small")]
            for model, size in kinds:
                name = f"{model} {size}" if model == "reference" else model
                models[name] = write_untrained(Path(folder) / f"{name}.safetensors", model, size)
                if model == "reference":
                    export(models[name], Path(folder) / name)
                    models[f"{name}, ONNX"] = Path(folder) / name / "model.onnx"
        for name, path in models.items():
            started = time.perf_counter()
            painter = load_painter(path, device="cpu")
            loading = time.perf_counter() - started
            print(f"{name}, model's side {painter.size[0]} px, loaded in {loading:.2f} s")
            for side in options.sides:
                clock, cpu = zip(*time_painting(painter, side, options.repeats), strict=True)
                print(
                    f"  {side:>4} px: {min(clock):.0f} / {statistics.median(clock):.0f} / "
                    f"{max(clock):.0f} ms a picture, {statistics.median(cpu):.0f} ms of CPU"
                )


if __name__ == "__main__":
    main()
