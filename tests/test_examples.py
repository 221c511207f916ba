"""The examples for clusters: they are what those take, and their commands do the work."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from torch.distributed.run import parse_args

from pipeline.dolls.data_set import write_dolls
from pipeline.recipe_file import load_recipe
from pipeline.run import fetch, prepare
from pipeline.work import Work
from tests.crashing import QUIET, contents

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
DOCUMENTS = list(yaml.safe_load_all((EXAMPLES / "k8s-job.yaml").read_text(encoding="utf-8")))
JOBS = {d["metadata"]["labels"]["step"]: d for d in DOCUMENTS if d["kind"] == "Job"}
SLURM = EXAMPLES / "slurm.sh"
RAY = (EXAMPLES / "ray-cluster.yaml").read_text(encoding="utf-8")
NUM_RANKS = 2
RECIPE = """
[select]
tags = ["doll"]
[source]
rate = 0
[prepare]
size = 64
[split]
shard_size = 8
[train]
model = "zhang2017"
width_multiplier = 0.125
style_weights = "random"
batch_size = 8
epochs = 1
num_following = 2
validations_per_epoch = 1
"""
SBATCH = """#!/usr/bin/env bash
# Runs a job at once, an array's tasks one after the other.
set -euo pipefail
echo "$*" >> "$SBATCH_LOG"
last=
while [[ $1 == --* ]]; do
  case $1 in --array=0-*) last=${1#--array=0-} ;; esac
  shift
done
export SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=node
if [[ -z $last ]]; then SLURM_CPUS_PER_TASK=16 bash "$@" >&2; fi
for ((task = 0; task <= ${last:--1}; task++)); do
  SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=$((last + 1)) bash "$@" >&2
done
echo 7
"""
STAND_INS = {
    "sbatch": SBATCH,
    "srun": '#!/bin/sh\n[ "$SRUN_CPUS_PER_TASK" = 16 ] && exec "$@"\n',
    "scontrol": "#!/bin/sh\necho 127.0.0.1\necho 127.0.0.1\n",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What the examples are to work on, and what a plain run makes of it.

    Attributes:
        root: a scratch folder.
        environment: the variables that the examples read.
        expected: the files of originals and samples.
    """

    root: Path
    environment: dict[str, str]
    expected: dict[str, bytes]

    def run(self, words: list[str], **more: str) -> None:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    root = tmp_path_factory.mktemp("examples")
    write_dolls(root / "mirror", 12, 8)
    (root / "recipe.toml").write_text(RECIPE)
    (root / "bin").mkdir()
    for name, text in STAND_INS.items():
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    path = [str(root / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {
        "PATH": os.pathsep.join(path),
        "PYTHON": sys.executable,
        "RECIPE": str(root / "recipe.toml"),
        "METADATA": str(root / "mirror" / "metadata"),
        "IMAGES": f"{root}/mirror/512px/{{bucket}}/{{id}}.jpg",
        "GPUS": "1",
        "SBATCH_LOG": str(root / "submitted"),
    }
    sources = [f'source.{name}="{environment[name.upper()]}"' for name in ("metadata", "images")]
    work = Work(root / "plain")
    fetch(load_recipe(environment["RECIPE"], sources), work, QUIET)
    prepare(load_recipe(environment["RECIPE"]), work, QUIET)
    return Setting(root, environment, contents(work))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def assert_trained(work: Work) -> None:
    assert (work.runs_dir / "default" / "best.safetensors").is_file()


@pytest.mark.slow
def test_slurms_example_makes_samples_and_trains(setting: Setting) -> None:
    work = Work(setting.root / "slurm")
    more = {"WORK": str(work.root), "RANKS": str(NUM_RANKS), "PORT": str(free_port())}
    setting.run(["bash", str(SLURM), "submit"], **more)
    assert contents(work) == setting.expected
    assert_trained(work)
    fetched, prepared, trained = (setting.root / "submitted").read_text().splitlines()
    assert f"--array=0-{NUM_RANKS - 1} " in fetched
    assert f"--array=0-{NUM_RANKS - 1} " in prepared
    assert "--dependency=afterany:7 " in prepared
    assert "--dependency=afterok:7 " in trained


def test_slurms_example_names_its_steps() -> None:
    done = subprocess.run(
        ["bash", str(SLURM), "dance"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "no step dance: submit, fetch, prepare or train\n"


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda d: f"{d['kind']} {d['metadata']['name']}"
)
def test_kubernetes_takes_the_example(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.30", strict=True)


@pytest.mark.parametrize("step", JOBS)
def test_a_jobs_numbers_and_names_agree(step: str) -> None:
    spec = JOBS[step]["spec"]
    pod, container = spec["template"]["spec"], container_of(step)
    values = {variable["name"]: variable["value"] for variable in container["env"]}
    assert (
        spec["completions"]
        == spec["parallelism"]
        == int(values["NODES" if step == "train" else "RANKS"])
    )
    assert spec["completionMode"] == "Indexed"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert list(mounts) == [volume["name"] for volume in pod["volumes"]]
    assert values["WORK"].startswith(f"{mounts['shared']}/")
    assert set(re.findall(r"\$(\w+)", container["args"][0])) == {
        *values,
        "JOB_COMPLETION_INDEX",
    } - {"HOST"}


def test_the_trainings_pods_find_each_other() -> None:
    (service,) = (document for document in DOCUMENTS if document["kind"] == "Service")
    name = JOBS["train"]["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert JOBS["train"]["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    head = {"name": "HEAD", "value": f"{name}-0.{service['metadata']['name']}"}
    assert head in container_of("train")["env"]


def container_of(step: str) -> dict[str, Any]:
    (container,) = JOBS[step]["spec"]["template"]["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize(
    "text", [SLURM.read_text(), container_of("train")["args"][0]], ids=["slurm", "k8s"]
)
def test_torchrun_leaves_the_trainings_options_alone(text: str) -> None:
    """It would take ``--run`` for one of its own, cut short."""
    (line,) = re.findall(r"(?:torch.distributed.run|exec torchrun) ((?:.|\n)+?--resume)", text)
    words = shlex.split(
        re.sub(r"\\?\n", " ", re.sub(r'"\$(NODES|GPUS|JOB\w+|SLURM\w+)"', "1", line))
    )
    arguments = parse_args([*words, "--run", "mine"])  # type: ignore[no-untyped-call]
    assert arguments.training_script == "cli.py"
    assert arguments.training_script_args[0] == "train"
    assert arguments.training_script_args[-3:] == ["--resume", "--run", "mine"]


@pytest.mark.slow
def test_kubernetes_example_makes_samples_and_trains(setting: Setting) -> None:
    work = Work(setting.root / "k8s")
    more = {"WORK": str(work.root), "NODES": "1", "HEAD": "127.0.0.1", "RANKS": str(NUM_RANKS)}
    for step, num_pods in (("fetch", NUM_RANKS), ("prepare", NUM_RANKS), ("train", 1)):
        container = container_of(step)
        words = [*container["command"], *container["args"]]
        words[-1] = words[-1].replace("29500", str(free_port()))
        for index in range(num_pods):
            setting.run(words, **more, JOB_COMPLETION_INDEX=str(index))
    assert contents(work) == setting.expected
    assert_trained(work)


def test_rays_launcher_takes_the_example() -> None:
    config = prepare_config(yaml.safe_load(RAY))
    validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])


@contextmanager
def running(command: str, environment: dict[str, str]) -> Iterator[None]:
    """Run a ``ray start`` in the foreground, until its end is asked for."""
    words = ["bash", "-c", f"exec env {command} --block"]
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        said = next((line for line in process.stdout if "Ray runtime started" in line), "")
        assert said
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(300)


@pytest.mark.slow
@pytest.mark.skipif(" " in sys.prefix, reason="ray start does not quote the path of its programs")
def test_rays_example_makes_samples(setting: Setting) -> None:
    config, port = yaml.safe_load(RAY), free_port()
    work = Work(setting.root / "ray")
    small = "--num-cpus=1 --object-store-memory=80000000 --node-ip-address"
    environment = setting.environment | {
        "RAY_HEAD_IP": "127.0.0.2",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "WORK": str(work.root),
    }
    nodes = []
    for kind, host in (("head", "127.0.0.2"), ("worker", "127.0.0.3")):
        stop, begin = config[f"{kind}_start_ray_commands"]
        assert stop == "ray stop"  # which would end every cluster on this machine
        nodes.append(f"{begin.replace('6379', str(port))} {small}={host}")
    known = environment | {"auto": f"127.0.0.2:{port}"}  # beside clusters of other tests
    commands = [
        ["env", *(known.get(word, word) for word in shlex.split(command))]
        for command in re.findall(r"ray exec \S+ 'cd /shared/nurie && (.+)'", RAY)
    ]
    assert len(commands) == 2
    with running(nodes[0], environment), running(nodes[1], environment):
        for command in commands:
            setting.run(command, **environment)
    assert contents(work) == setting.expected
