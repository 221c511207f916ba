"""A training step of each model on a GPU: samples/s by variant, and how far that is from the roof.

    python -m benchmarks.bench_gpu WORK [--models NAME ...] [--variants NAME ...] [--steps 100]
        [--batch-size 32] [--size base] [--profile]

WORK is a work folder with samples. First the ceilings of this GPU: a copy of 4 GB counting what
is read and what is written, and products of 8192 x 8192 matrices of random numbers. Then the real
training loop, from the same first weights in every variant: samples/s and waiting for data are
medians of the log's lines after the first quarter of the steps, and the loss is that of the last
line. An epoch's first pass computes style features, later ones read them, so give more steps than
an epoch has to see the latter. The operations of a step are counted in its convolutions and
products, the bytes as what each of its operations reads and writes, one by one; what a compiler
fuses is not written at all, so that a step can be faster than its bytes.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from model.config import MODELS, TrainConfig, train_config
from model.data.augment import augment_batch
from model.data.samples import Samples
from model.networks.discriminator import Discriminator
from model.networks.style import build_style_network
from model.training.state import TrainState
from model.training.steps import training_step
from model.training.train import train

VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "bf16-last": {"precision": "bf16", "channels_last": True},
    "bf16-compile": {"precision": "bf16", "compile": True},
    "bf16-compile-last": {"precision": "bf16", "compile": True, "channels_last": True},
}
"""``fp32`` multiplies in TF32; ``last`` is for channels last."""

SIDE = 8192
COPY_BYTES = 4 << 30
NUM_PROFILED = 10


def seconds_of(call: Callable[[], object], repeats: int = 10) -> float:
    """Return the median time of a call on the GPU, after three that do not count."""
    times = []
    for i in range(3 + repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        if i >= 3:
            times.append(float(start.elapsed_time(end)) / 1e3)
    return statistics.median(times)


def measure_ceilings() -> dict[str, float]:
    """Return bytes/s of a copy, and operations/s of products in bf16 and in TF32."""
    source = torch.randint(255, (COPY_BYTES,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    found = {"copy": 2 * COPY_BYTES / seconds_of(lambda: target.copy_(source))}
    for name, kind in (("bf16", torch.bfloat16), ("tf32", torch.float32)):
        a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=kind) for _ in range(2))
        found[name] = 2 * SIDE**3 / seconds_of(lambda a=a, b=b: a @ b)  # type: ignore[misc]
    return found


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that operations read and write, each by itself."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_bytes = 0

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, result)) if torch.is_tensor(t)]
            self.num_bytes += sum(t.numel() * t.element_size() for t in tensors)
        return result


def one_step(config: TrainConfig, samples: Samples) -> Callable[[], object]:
    """Return a step of training on one batch, again and again, with its augmentation."""
    device = torch.device("cuda")
    state = TrainState.build(config, device)
    spec = state.generator.style_spec
    network = build_style_network(spec.network, normalised=spec.normalised, weights="random")
    network.to(device)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=config.precision == "bf16")
    batch = samples.load(range(config.batch_size), pin=True)
    _, _, reference = augment_batch(batch, config, 0, device, layout)
    with torch.no_grad():
        style = network(reference).float()  # as read from the file

    def step() -> None:
        sketch, color, reference = augment_batch(batch, config, 0, device, layout)
        features = style if config.model != "reference" else network(reference)
        asked = isinstance(state.discriminator, Discriminator)
        vector = network.vector(features) if asked else None
        training_step(state, config, color, sketch, features, vector, autocast)

    return step


def count(config: TrainConfig, samples: Samples) -> dict[str, float]:
    """Return the operations and the bytes of one eager step, each for one sample."""
    step = one_step(config, samples)
    step()
    with FlopCounterMode(display=False) as operations, Traffic() as traffic:
        step()
    size = config.batch_size
    return {"flop": operations.get_total_flops() / size, "bytes": traffic.num_bytes / size}


def run(config: TrainConfig, work: Path, num_steps: int) -> dict[str, float]:
    """Train for some steps; return rate, waiting, last loss, memory, and seconds with all."""
    torch._dynamo.reset()
    torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        quiet = Console(quiet=True)
        train(config, work / "samples", Path(folder) / "run", max_steps=num_steps, console=quiet)
        lines = [json.loads(line) for line in (Path(folder) / "run" / "log.jsonl").open()]
    lines = [line for line in lines if line["kind"] == "train"]
    later = [line for line in lines if line["step"] > num_steps / 4]
    return {
        "rate": statistics.median(line["samples_per_second"] for line in later),
        "wait": statistics.median(line["data_wait"] for line in later),
        "l1": lines[-1]["l1"],
        "gib": torch.cuda.max_memory_allocated() / 2**30,
        "seconds": time.monotonic() - started,
    }


def show_profile(config: TrainConfig, samples: Samples) -> None:
    """Print where the time of a step goes, kernel by kernel."""
    step = one_step(config, samples)
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    started = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(NUM_PROFILED):
            step()
        torch.cuda.synchronize()
    wall = (time.perf_counter() - started) / NUM_PROFILED
    kernels = [e for e in found.key_averages() if e.device_type == DeviceType.CUDA]
    kernels.sort(key=lambda kernel: -kernel.self_device_time_total)
    busy = sum(kernel.self_device_time_total for kernel in kernels) / NUM_PROFILED / 1e6
    num_kernels = sum(kernel.count for kernel in kernels) / NUM_PROFILED
    print(
        f"profile: {busy * 1e3:.1f} ms of kernels a step, {num_kernels:.0f} of them; "
        f"{wall * 1e3:.1f} ms by the clock, the profiler's own included"
    )
    for kernel in kernels[:16]:
        share = kernel.self_device_time_total / NUM_PROFILED / 1e6 / busy
        print(f"  {share:6.1%} {kernel.count / NUM_PROFILED:6.0f} x  {kernel.key[:100]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", default="base", help="of the model reference")
    parser.add_argument("--profile", action="store_true", help="of the last variant")
    options = parser.parse_args()
    if options.work is None or not torch.cuda.is_available():
        print("needs a GPU, and a work folder with samples: nothing was measured")
        return
    torch.set_float32_matmul_precision("high")
    ceilings = measure_ceilings()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: copy "
        f"{ceilings['copy'] / 1e12:.2f} TB/s, bf16 {ceilings['bf16'] / 1e12:.0f} and TF32 "
        f"{ceilings['tf32'] / 1e12:.0f} TFLOP/s",
        flush=True,
    )
    for model in options.models:
        table = {
            "model": model,
            "size": options.size,
            "batch_size": options.batch_size,
            "style_weights": "random",
            "decode_threads": 4,
            "epochs": 1000,
            "validations_per_epoch": 0.001,
            "compile": False,
            "channels_last": False,
        }
        configs = {v: train_config(table | VARIANTS[v], "benchmark") for v in options.variants}
        with Samples(options.work / "samples", "train") as samples:
            work = count(train_config(table | VARIANTS["bf16"], "benchmark"), samples)
            floor = max(work["flop"] / ceilings["bf16"], work["bytes"] / ceilings["copy"])
            print(
                f"{model}: {work['flop'] / 1e9:.1f} GFLOP and {work['bytes'] / 1e6:.0f} MB a "
                f"sample, {work['flop'] / ceilings['bf16'] * 1e6:.0f} and "
                f"{work['bytes'] / ceilings['copy'] * 1e6:.0f} microseconds at the ceilings: "
                f"{1 / floor:.0f} samples/s in eager bf16 at the most",
                flush=True,
            )
            for variant, config in configs.items():
                found = run(config, options.work, options.steps)
                print(
                    f"{model:10} {variant:18} {found['rate']:7.0f} samples/s, "
                    f"{found['rate'] * work['flop'] / ceilings['bf16']:6.1%} of bf16's ceiling, "
                    f"{found['wait']:.2%} waiting, l1 {found['l1']:.4g}, {found['gib']:.1f} GiB, "
                    f"{found['seconds']:.0f} s with all",
                    flush=True,
                )
            if options.profile:
                show_profile(config, samples)


if __name__ == "__main__":
    main()
