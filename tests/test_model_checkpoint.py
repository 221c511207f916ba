import dataclasses
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from model.checkpoint import (
    FORMAT,
    VERSION,
    CheckpointInfo,
    _digest,
    load_checkpoint,
    optimizer_tensors,
    pack,
    read_sum,
    restore_optimizer,
    save_checkpoint,
    unpack,
)
from model.config import ModelConfig, TrainConfig
from model.networks.style import Provenance
from model.weights import read_weights
from pipeline.errors import DamagedError, UserError
from pipeline.settings import to_table


def info_at(step: int) -> CheckpointInfo:
    return CheckpointInfo(
        model=ModelConfig(width_multiplier=0.5),
        train=TrainConfig(batch_size=4),
        size=(64, 96),
        style=Provenance("vgg19", "random", 3, "ab" * 32),
        samples="cd" * 32,
        step=step,
        epoch=1,
        position=8,
        metrics={"mse": 0.25},
        best=0.125,
        recipe={"name": "r", "prepare": {"fit": "pad"}},
    )


def tensors_at(step: int) -> dict[str, torch.Tensor]:
    return {
        "generator.weight": torch.full((3, 2), float(step)),
        "generator.counter": torch.tensor(step),
        "random.cpu": torch.arange(5, dtype=torch.uint8),
        "generator.half": torch.full((2,), step, dtype=torch.bfloat16),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "best.safetensors", tensors_at(7), info_at(7))
    return tmp_path / "best.safetensors"


def test_what_is_saved_is_loaded(saved: Path) -> None:
    for path in (saved, saved.with_suffix(".json"), saved.parent):
        tensors, info = load_checkpoint(path)
        assert info == info_at(7)
        assert tensors.keys() == tensors_at(7).keys()
        for name, tensor in tensors_at(7).items():
            assert torch.equal(tensors[name], tensor)
            assert tensors[name].dtype == tensor.dtype


def test_the_json_beside_it_can_be_read(saved: Path) -> None:
    table = orjson.loads(saved.with_suffix(".json").read_bytes())
    assert table["weights"] == "best.safetensors"
    assert table["step"] == 7
    assert table["recipe"]["prepare"] == {"fit": "pad"}
    assert table["versions"].keys() == {"torch", "numpy"}
    assert table["model"]["name"] == "zhang2017"
    assert table["sha256"] == read_sum(saved)


def test_layouts_that_share_or_skip_memory_are_saved_plainly(tmp_path: Path) -> None:
    weight = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "a.safetensors", {"w": weight, "t": weight[:, 0].mT}, info_at(1))
    tensors, _ = load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(tensors["w"], weight)
    assert torch.equal(tensors["t"], weight[:, 0].mT)


@settings(max_examples=50)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(
    tmp_path_factory: pytest.TempPathFactory, where: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("c") / "last.safetensors"
    save_checkpoint(path, tensors_at(7), info_at(7))
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"last\.safetensors"):
        load_checkpoint(path)


def test_missing_torn_and_foreign_files_are_named(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "empty")
    with pytest.raises(UserError, match=r"/a picture\.png: no such checkpoint"):
        load_checkpoint(tmp_path / "a picture.png")
    (tmp_path / "lone.json").write_text("{}")  # it is there, and what it tells of is not
    with pytest.raises(UserError, match=r"/lone\.safetensors: no such checkpoint"):
        load_checkpoint(tmp_path / "lone.json")
    onnx_path = saved.with_suffix(".onnx")
    onnx_path.touch()  # not silently its neighbour, which may be of another model
    with pytest.raises(UserError, match="an ONNX file is for `colorize` and `app` alone"):
        load_checkpoint(onnx_path)
    run_dir = tmp_path / "work" / "runs" / "first"
    save_checkpoint(run_dir / "last.safetensors", tensors_at(1), info_at(1))
    save_checkpoint(run_dir.with_name("a") / "last.safetensors", tensors_at(1), info_at(1))
    typos = {"": "a", "runs": "a", "runs/frist": "first", "runs/frist/last.safetensors": "first"}
    for mistyped, likely in typos.items():
        said = rf"Give one of the runs there, such as .*/runs/{likely}\."
        with pytest.raises(UserError, match=said):
            load_checkpoint(tmp_path / "work" / mistyped)
    with pytest.raises(UserError, match=r"has no best one yet; give .*/first/last\.safetensors"):
        load_checkpoint(run_dir)
    saved.write_bytes(saved.read_bytes()[:-3])
    for read in (load_checkpoint, read_sum):
        with pytest.raises(UserError, match="damaged, or not a .safetensors"):
            read(saved)
    save_file(tensors_at(1), tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        load_checkpoint(tmp_path / "weights.safetensors")


def test_a_newer_format_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.checkpoint.VERSION", VERSION + 1)
    save_checkpoint(saved, tensors_at(7), info_at(7))
    monkeypatch.setattr("model.checkpoint.VERSION", VERSION)
    with pytest.raises(UserError, match="newer version"):
        load_checkpoint(saved)


@pytest.mark.parametrize("fatal", [1, 2, 3])
def test_a_crash_leaves_the_old_or_the_new_whole(
    saved: Path, monkeypatch: pytest.MonkeyPatch, fatal: int
) -> None:
    """Dies at every rename in turn; the third never comes, and there the new one must be there."""
    renames = []
    rename = Path.replace

    def dying_rename(self: Path, target: Path) -> Path:
        renames.append(self)
        if len(renames) == fatal:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", dying_rename)
    try:
        save_checkpoint(saved, tensors_at(8), info_at(8))
    except KeyboardInterrupt:
        assert fatal < 3
    tensors, info = load_checkpoint(saved)
    assert info.step == int(tensors["generator.counter"]) == (7 if fatal == 1 else 8)


def test_an_optimiser_goes_on_as_if_it_had_never_stopped() -> None:
    """Its moments are saved plainly, and laid out as the weights again."""
    runs = []
    for stop in (False, True):
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(layer.parameters(), 0.1, fused=True)
        for step in range(6):
            if stop and step == 3:
                kept = optimizer_tensors(optimizer)
                assert all(isinstance(t, torch.Tensor) for t in kept.values())
                optimizer = torch.optim.AdamW(layer.parameters(), 0.1, fused=True)
                restore_optimizer(optimizer, {name: t.contiguous() for name, t in kept.items()})
            optimizer.zero_grad()
            layer(step * torch.arange(12.0).view(1, 3, 2, 2)).sum().backward()
            optimizer.step()
        runs.append(layer.weight.detach().clone())
    assert torch.equal(runs[0], runs[1])


def test_packing_is_undone() -> None:
    tensors = tensors_at(1)
    both = {**pack("a", tensors), **pack("ab", {"x": torch.zeros(1)})}
    assert unpack("a", both).keys() == tensors.keys()
    assert unpack("ab", both).keys() == {"x"}


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"size": (100, 100)}, "pictures of 100 x 100 pixels"),
        ({"size": (0, 0)}, "pictures of 0 x 0 pixels"),
        ({"size": (64, 2**20)}, "pictures of 1048576 x 64 pixels"),
        ({"recipe": {"prepare": 3}}, "its recipe is none"),
        ({"recipe": {"prepare": {"sketch": "dodge"}}}, "its recipe is none"),
        ({"recipe": {"prepare": {"sketches": {"a": 2}}}}, "its recipe is none"),
        ({"recipe": {"prepare": {"sketches": {"a": {"onnx": 2}}}}}, "its recipe is none"),
        ({"recipe": {"select": {"tags": 3}}}, "its recipe is none"),
        ({"recipe": {"source": []}}, "its recipe is none"),
    ],
)
def test_what_no_training_wrote_is_refused(saved: Path, odd: dict[str, Any], said: str) -> None:
    save_checkpoint(saved, tensors_at(7), dataclasses.replace(info_at(7), **odd))
    with pytest.raises(UserError, match=f"best.safetensors: .*{said}"):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", ["step", "epoch", "position"])
def test_a_place_before_the_beginning_is_refused(saved: Path, name: str) -> None:
    table = to_table(info_at(7)) | {name: -1}
    text = orjson.dumps(table).decode()
    forged = {"format": FORMAT, "version": "1", "info": text}
    forged["sha256"] = _digest("1", text, tensors_at(7))
    save_file(tensors_at(7), saved, metadata=forged)
    with pytest.raises(UserError, match=rf"best\.safetensors: .*{name}: -1 is negative"):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["{", "[]", "null", "[" * 5000])
def test_a_header_that_no_training_wrote_is_refused(saved: Path, text: str) -> None:
    forged = {"format": FORMAT, "version": "1", "info": text}
    forged["sha256"] = _digest("1", text, tensors_at(7))
    save_file(tensors_at(7), saved, metadata=forged)
    with pytest.raises(UserError, match=r"best\.safetensors: "):
        load_checkpoint(saved)


def test_a_header_that_cannot_be_written_on_is_refused(saved: Path) -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    text = json.dumps(to_table(info_at(7)) | {"recipe": {"train": {"a": deep}}})
    forged = {"format": FORMAT, "version": "1", "info": text}
    forged["sha256"] = _digest("1", text, tensors_at(7))
    save_file(tensors_at(7), saved, metadata=forged)
    with pytest.raises(DamagedError, match="Recursion limit"):
        load_checkpoint(saved)


def test_a_version_of_thousands_of_digits_is_newer(saved: Path) -> None:
    save_file(tensors_at(7), saved, metadata={"format": FORMAT, "version": "9" * 5000})
    with pytest.raises(UserError, match="newer version"):
        load_checkpoint(saved)


@pytest.mark.parametrize("version", ["", "one", "-1"])
def test_a_version_that_is_no_number_is_damage(saved: Path, version: str) -> None:
    save_file(tensors_at(7), saved, metadata={"format": FORMAT, "version": version})
    with pytest.raises(DamagedError, match="do not match their hash"):
        load_checkpoint(saved)


def write_header(path: Path, **tensors: dict[str, Any]) -> None:
    """Write a file of safetensors that holds no bytes but its header."""
    header = orjson.dumps(tensors)
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    write_header(path, **{f"{number}": empty for number in range(80_000)})
    for read in (load_checkpoint, read_sum):
        with pytest.raises(DamagedError, match="its header has 4.* bytes, and at most 4194304"):
            read(path)
    with pytest.raises(UserError, match="damaged"):
        read_weights(path)


def test_a_tensor_of_more_than_any_number_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_header(path, a={"dtype": "U8", "shape": [0, 2**64 - 1], "data_offsets": [0, 0]})
    with pytest.raises(DamagedError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
