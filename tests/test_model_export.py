import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
import pyarrow as pa
import pytest
import torch
from huggingface_hub import ModelCard
from onnx import helper
from PIL import Image
from torch import Tensor, nn
from typer.testing import Result

from model.checkpoint import CheckpointInfo, load_checkpoint, pack, save_checkpoint, unpack
from model.use import export_onnx
from model.use.colorize import as_painter, load_colorizer
from model.use.export import Export, export, without_paths
from model.use.load import load_painter
from model.use.painter_onnx import OnnxInfo
from pipeline.errors import UserError
from pipeline.pictures.onnx_session import open_session
from pipeline.pictures.sketch import dodge
from pipeline.recipe_file import load_recipe
from pipeline.settings import to_table
from pipeline.shards.rows import read_seal, write_rows
from pipeline.words import plain, sized
from tests.calls import call
from tests.files import files_in
from tests.model_checkpoints import write_checkpoint, write_metrics
from tests.onnx_models import write_model, write_painter
from tests.pictures import draw_picture
from tests.plurals import plurals_of_one

ROOT = Path(__file__).resolve().parent.parent
SECRET = "/disk/pictures"
RECIPE = to_table(
    load_recipe(
        "dolls-64",
        [
            f"source.metadata={SECRET}/metadata",
            f"source.images={SECRET}/{{id}}.jpg",
            f"select.nsfw_ids={SECRET}/nsfw.txt",
            "prepare.sketches.net.method=onnx",
            f"prepare.sketches.net.onnx.model={SECRET}/net.onnx",
            f"train.style_weights={SECRET}/vgg19.pth",
        ],
    )
)
SKETCH = Image.fromarray(dodge(draw_picture(1, 90, 150), 3.5))
REFERENCE = Image.fromarray(draw_picture(2))

pytestmark = pytest.mark.usefixtures("one_style_network")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a work folder with one run and its evaluation, and a lock."""
    work = tmp_path_factory.mktemp("work")
    checkpoint = write_checkpoint(
        work / "runs" / "first" / "best.safetensors", "reference", recipe=RECIPE
    )
    tensors, info = load_checkpoint(checkpoint)
    random = torch.Generator().manual_seed(0)
    tensors["generator.out.weight"].normal_(std=0.05, generator=random)  # zeros hide mistakes
    guided = dataclasses.replace(info.train, drop_reference=0.1)
    save_checkpoint(checkpoint, tensors, dataclasses.replace(info, train=guided))
    write_metrics(checkpoint.parent / "eval-test" / "metrics.json")
    write_metrics(checkpoint.parent / "eval-val" / "metrics.json", step=2)
    write_rows(work / "posts.parquet", [pa.table({"post_id": [1]})], {})
    return work


@pytest.fixture(scope="module")
def exported(work: Path) -> tuple[Path, Result]:
    """Return the folder of an export by the command line, and what that printed."""
    arguments = ["export", str(work / "runs" / "first"), "--out", str(work / "out")]
    return work / "out", call(*arguments)


def test_the_command_says_what_it_wrote(exported: tuple[Path, Result]) -> None:
    out, result = exported
    assert result.exit_code == 0, result.output
    names = {"model.safetensors", "config.json", "model.onnx", "README.md"}
    assert {path.name for path in out.iterdir()} == names
    for name in names:
        assert f"{out / name}: {sized((out / name).stat().st_size)}" in result.output
    assert "ONNX: differs from the model by at most" in result.output
    assert "eval-val/metrics.json: is of another checkpoint, and not in the card" in result.output
    assert "no figures" not in result.output


def test_the_weights_are_a_checkpoint_without_what_only_training_needs(
    work: Path, exported: tuple[Path, Result]
) -> None:
    tensors, info = load_checkpoint(work / "runs" / "first")
    found, about = load_checkpoint(exported[0])
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert dataclasses.replace(about, recipe={}) == dataclasses.replace(info, recipe={})
    config = orjson.loads((exported[0] / "config.json").read_bytes())
    assert (config["weights"], config["step"]) == ("model.safetensors", 3)
    assert config["model"]["name"] == "reference"


def test_of_weights_and_their_mean_the_mean_is_exported(work: Path, tmp_path: Path) -> None:
    tensors, info = load_checkpoint(work / "runs" / "first")
    means = {name: tensor + 1 for name, tensor in unpack("generator", tensors).items()}
    save_checkpoint(tmp_path / "last.safetensors", tensors | pack("ema", means), info)
    export(tmp_path / "last.safetensors", tmp_path / "out", onnx=False)
    found, _ = load_checkpoint(tmp_path / "out")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[f"generator.{name}"], means[name]) for name in means)


def test_the_onnx_file_colours_as_the_checkpoint_does(
    work: Path, exported: tuple[Path, Result]
) -> None:
    ours, theirs = load_painter(work / "runs" / "first"), load_painter(exported[0] / "model.onnx")
    assert (theirs.size, theirs.model, theirs.pad) == (ours.size, "reference", False)
    assert theirs.recipe["prepare"]["sketch"] == RECIPE["prepare"]["sketch"]
    assert ours.can_be_guided
    assert theirs.can_be_guided
    seen = []
    for guidance in (0.0, 1.0, 2.5):
        pictures = [
            np.asarray(painter.paint(SKETCH, painter.look_at(REFERENCE, "it"), guidance), np.int16)
            for painter in (ours, theirs)
        ]
        assert pictures[0].shape == (90, 150, 3)
        assert np.abs(pictures[0] - pictures[1]).max() <= 1
        seen.append(pictures[0])
    assert seen[1].std() > 10
    assert np.abs(seen[0] - seen[1]).mean() > 2
    assert np.abs(seen[2] - seen[1]).mean() > 2


def test_the_onnx_file_needs_no_torch(exported: tuple[Path, Result], tmp_path: Path) -> None:
    SKETCH.save(tmp_path / "a.png")
    REFERENCE.save(tmp_path / "b.png")
    code = "import sys; sys.modules['torch'] = None; from cli import main; main()"  # import fails
    arguments = [str(exported[0] / "model.onnx"), "--sketch", "a.png", "--reference", "b.png"]
    done = subprocess.run(
        [sys.executable, "-c", code, "colorize", *arguments, "--out", "c.png"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "c.png: 150 x 90\n"
    assert Image.open(tmp_path / "c.png").size == (150, 90)


def test_the_card_says_what_is_known(work: Path, exported: tuple[Path, Result]) -> None:
    card = ModelCard.load(exported[0] / "README.md")
    assert card.data.library_name == "nurie"
    assert card.data.license == "other"
    text = card.text
    _, info = load_checkpoint(exported[0])
    for expected in (
        "# reference on dolls-64",
        "recipe: `dolls-64`: Drawn dolls on a white background",
        "selection: rating `safe`; tags `doll`, `white_background`",
        "sketches by dodge and onnx",
        "no character is in two of the splits",
        f"lock (`posts.parquet`): SHA-256 {read_seal(work / 'posts.parquet')}",
        "3 steps of",
        f"torch {info.versions['torch']}",
        "40 pictures in 9 clusters of the test split, reference: character.",
        "| answer | psnr | following | chroma error |",
        "| `reference` | 19.500 (19.000 to 20.000) | 0.900 | 0.610 |",
        "| `grey` | 10.000 | 0.000 | 1.000 |",
        "belong to their makers",
    ):
        assert expected in text, expected
    assert "Not measured" not in text


def test_nothing_names_a_path_of_this_machine(exported: tuple[Path, Result]) -> None:
    for path in exported[0].iterdir():
        content = path.read_bytes()
        for secret in (SECRET, str(ROOT), sys.prefix, "site-packages", ".py"):
            if (path.name, secret) != ("README.md", ".py"):  # `python cli.py`
                assert secret.encode() not in content, (path.name, secret)


def test_an_onnx_file_that_differs_is_not_written(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_onnx, "_translate", lambda *_: b"")
    for difference in (2e-3, float("nan"), float("inf")):
        monkeypatch.setattr(export_onnx, "_compare", lambda *_, d=difference: d)
        with pytest.raises(UserError, match="would differ from the model by up to"):
            export(work / "runs" / "first", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_the_check_sees_a_difference(exported: tuple[Path, Result]) -> None:
    """It is made against another model, so that it is known to be able to fail."""
    colorizer, info = load_colorizer(exported[0], device="cpu")
    content = (exported[0] / "model.onnx").read_bytes()
    whole = export_onnx._Whole(colorizer).eval()
    assert export_onnx._compare(whole, content, info.size) < 1e-4
    with torch.no_grad():
        colorizer.generator.get_parameter("out.bias")[0] += 0.01
    assert export_onnx._compare(whole, content, info.size) == pytest.approx(0.01, rel=0.05)


def test_bare_paper_is_normalised_as_exactly_as_by_torch() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.GroupNorm(2, 4)
            nn.init.uniform_(self.norm.weight)
            nn.init.uniform_(self.norm.bias)

        def forward(self, sketch: Tensor, reference: Tensor) -> Tensor:
            normalised: Tensor = self.norm(torch.cat([sketch, sketch * reference], 1))
            return normalised

    model, size = Normalised().eval(), (256, 256)
    content = export_onnx._translate(model, OnnxInfo(1, "reference", size))
    given = {"sketch": torch.ones(1, 1, *size), "reference": torch.full((1, 3, *size), 0.7)}
    given["sketch"][..., ::64] = 0
    (found,) = open_session(content, "it", num_threads=1).run(
        None, {name: picture.numpy() for name, picture in given.items()}
    )
    with torch.inference_mode():
        assert np.abs(found - model(**given).numpy()).max() < 1e-4


def test_without_onnx_the_rest_is_written(work: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("of an earlier model")
    found = export(work / "runs" / "first", tmp_path, onnx=False)
    assert found.difference is None
    assert sorted(found.files) == ["README.md", "config.json", "model.safetensors"]
    assert not (tmp_path / "model.onnx").exists()
    card = (tmp_path / "README.md").read_text()
    assert "There is no ONNX file beside it." in card
    assert "lock (`posts.parquet`): none" in card
    assert load_painter(tmp_path).model == "reference"


def test_without_the_extra_its_name_is_said(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[onnx\]'"):
        export(work / "runs" / "first", tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    write_model(tmp_path / "any.onnx")
    with pytest.raises(UserError, match=r"any\.onnx: needs onnxruntime: pip install"):
        load_painter(tmp_path / "any.onnx")


def test_what_lies_beside_a_checkpoint_is_not_replaced(
    work: Path, exported: tuple[Path, Result]
) -> None:
    """A run's config.json says more than an export's, and a second export knows no figures."""
    run_dir = work / "runs" / "first"
    for checkpoint, folder in (
        (exported[0], exported[0]),
        (run_dir, run_dir),
        (run_dir / "best.safetensors", run_dir / "eval-test" / ".."),
    ):
        before = files_in(folder)
        refused = call("export", checkpoint, "--out", folder)
        assert isinstance(refused.exception, UserError)
        assert f"--out {folder}: the model that is exported lies there" in str(refused.exception)
        assert files_in(folder) == before


def test_an_evaluation_of_another_checkpoint_is_refused(work: Path, tmp_path: Path) -> None:
    other = write_metrics(tmp_path / "metrics.json", step=4)
    with pytest.raises(UserError, match="at step 4, and this one is 'reference' at step 3"):
        export(work / "runs" / "first", tmp_path / "out", metrics_paths=[other], onnx=False)
    other.write_text("[]")
    with pytest.raises(UserError, match="is not what `eval` writes"):
        export(work / "runs" / "first", tmp_path / "out", metrics_paths=[other], onnx=False)
    other.write_text("{")
    with pytest.raises(UserError, match="cannot be read as metrics"):
        export(work / "runs" / "first", tmp_path / "out", metrics_paths=[other], onnx=False)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_knows_little_has_a_card_that_says_so(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run" / "best.safetensors", "batchnorm")
    found = export(tmp_path / "run", tmp_path / "out", onnx=False)
    assert found == Export(found.files, None, [], [])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "recipe: `unknown`" in card
    assert "Not measured: no evaluation" in card
    assert "Its style network has random weights" in card


def test_one_of_each_is_said_as_one(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "run" / "best.safetensors", "reference")
    tensors, info = load_checkpoint(checkpoint)
    lone = dataclasses.replace(info, step=1, train=dataclasses.replace(info.train, batch_size=1))
    save_checkpoint(checkpoint, tensors, lone)
    block = {"reference": "self", "num_samples": 1, "psnr": 20.0, "baselines": {}}
    block |= {"num_clusters": 1, "intervals": {"psnr": None}}
    metrics = write_metrics(tmp_path / "m.json", step=1, settings={"self": block})
    export(checkpoint, tmp_path / "out", metrics_paths=[metrics], onnx=False)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- 1 step of 1 picture, in epoch" in card
    assert "1 picture in 1 cluster of the test split, reference: self." in card
    assert plurals_of_one(card) == []


def test_intervals_over_single_pictures_are_not_shown(work: Path, tmp_path: Path) -> None:
    """Versions that resampled pictures counted no clusters."""
    figures = {"psnr": 19.5, "lpips": 0.25, "intervals": {"psnr": [19.0, 20.0]}}
    block = {"reference": "self", "num_samples": 40, **figures, "baselines": {}}
    metrics = write_metrics(tmp_path / "m.json", settings={"self": block})
    export(work / "runs" / "first", tmp_path / "out", metrics_paths=[metrics], onnx=False)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "40 pictures of the test split, reference: self." in card
    assert "| answer | psnr | lpips |" in card
    assert "| `reference` | 19.500 | 0.250 |" in card


def test_paths_of_weights_become_names() -> None:
    info = example_info(style_weights="/disk/vgg19.pth")
    plain_info = without_paths(info)
    assert plain_info.model.style_weights == plain_info.train.style_weights == "vgg19.pth"
    assert without_paths(example_info()) == example_info()


def example_info(**train: Any) -> CheckpointInfo:
    from model.config import TrainConfig
    from model.networks.style import Provenance

    config = TrainConfig(**train)
    style = Provenance("vgg19", "vgg19.pth", 0, "abc")
    return CheckpointInfo(config.model_config(), config, (64, 64), style, "", 0, 0, 0)


def test_a_text_from_a_recipe_cannot_be_markup() -> None:
    assert plain("a `b` | <img src=x>\n[c](d)") == "a b img src=x c (d)"


def test_onnx_files_of_others_are_named(exported: tuple[Path, Result], tmp_path: Path) -> None:
    other = write_model(tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"other\.onnx: is an ONNX file, but not one that `export`"):
        load_painter(other)
    with pytest.raises(UserError, match=r"none\.onnx: cannot be read"):
        load_painter(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UserError, match=r"text\.onnx: cannot be loaded as one self-contained"):
        load_painter(tmp_path / "text.onnx")
    with pytest.raises(UserError, match="computes on the CPU, not on 'cuda'"):
        load_painter(exported[0] / "model.onnx", device="cuda")
    newer = onnx.load(str(exported[0] / "model.onnx"))
    newer.metadata_props[0].value = '{"version": 2}'
    onnx.save(newer, str(tmp_path / "newer.onnx"))
    with pytest.raises(UserError, match="written by a newer version of this program"):
        load_painter(tmp_path / "newer.onnx")
    newer.metadata_props[
        0
    ].value = '{"version": 1, "model": "reference", "size": [64, 64], "recipe": {"prepare": 3}}'
    onnx.save(newer, str(tmp_path / "odd.onnx"))
    with pytest.raises(UserError, match=r"odd\.onnx: its recipe is none"):
        load_painter(tmp_path / "odd.onnx")
    newer.metadata_props[0].value = '{"version": 1, "model": "reference", "size": [32, 32]}'
    onnx.save(newer, str(tmp_path / "liar.onnx"))
    with pytest.raises(UserError, match="which is not what it says of itself"):
        load_painter(tmp_path / "liar.onnx")


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (helper.make_node("Identity", ["sketch"], ["picture"]), "what it gives is no picture"),
        (helper.make_node("Log", ["reference"], ["picture"]), "holds what is no number"),
        (helper.make_node("Unsqueeze", ["reference", "size"], ["picture"]), "does not run"),
    ],
)
def test_an_onnx_file_that_gives_no_picture_is_refused(
    node: onnx.NodeProto, said: str, tmp_path: Path
) -> None:
    size = helper.make_node("Size", ["sketch"], ["size"])
    painter = load_painter(write_painter(tmp_path / "a.onnx", size, node))
    with pytest.raises(UserError, match=rf"a\.onnx: .*{said}"):
        painter.answer(np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.uint8), 1.0)


def test_an_onnx_file_of_enormous_pictures_is_refused(tmp_path: Path) -> None:
    echo = helper.make_node("Identity", ["reference"], ["picture"])
    with pytest.raises(UserError, match=r"a\.onnx: is of pictures of 65536 x 65536 pixels"):
        load_painter(write_painter(tmp_path / "a.onnx", echo, side=65536))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zhang2017", "inception"])
def test_the_articles_models_are_translated_too(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.safetensors", name)
    colorizer, info = load_colorizer(tmp_path, device="cpu")
    content, difference = export_onnx.export_onnx(colorizer, OnnxInfo(1, name, info.size))
    assert difference < 1e-4
    (tmp_path / "model.onnx").write_bytes(content)
    found = load_painter(tmp_path / "model.onnx").paint(
        SKETCH, as_painter(colorizer, info).look_at(REFERENCE, "it")
    )
    assert found.size == (150, 90)


def test_metrics_that_eval_did_not_write_are_refused(work: Path, tmp_path: Path) -> None:
    settings: list[Any] = [[], {"x": {}}]
    settings.append({"x": {"reference": "x", "num_samples": 2, "baselines": 3}})
    wrong: list[dict[str, Any]] = [{"settings": of_some} for of_some in settings]
    for changed in [*wrong, {"guidance": "1"}, {"sketch": 1}, {"sha256": 1}]:
        path = write_metrics(tmp_path / "bad.json", **changed)
        with pytest.raises(UserError, match="is not what `eval` writes: "):
            export(work / "runs" / "first", tmp_path / "out", metrics_paths=[path], onnx=False)
    assert not (tmp_path / "out").exists()
