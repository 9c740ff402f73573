"""Starts a training on a cluster: SLURM, TPU VMs, Kubernetes, SkyPilot, SageMaker or Vertex AI.

A run's directory is in a bucket, ``gs://`` or ``s3://``, or a folder that all hosts see; jaxlab takes both. A platform
is a template in ``templates/``, filled in here, and a command that takes it. ``--dry-run`` prints both and starts
nothing. What is not a flag of the launcher goes to ``jaxlab train`` as it stands.
Usage: ``python scripts/launch/launch.py slurm --config=F --workdir=D --nodes=2 --dry-run --config.train.steps=1000``.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

TEMPLATES = Path(__file__).parent / "templates"
ROOT = Path(__file__).resolve().parents[2]


class Platform(NamedTuple):
    """How a platform is given a training."""

    template: str
    submit: tuple[str, ...]  # {file} and other flags are filled in
    fields: Callable[[argparse.Namespace, list[str]], dict[str, str]]
    needs: tuple[str, ...] = ()  # flags that have to be there
    workdirs: str = ""  # how the run's directory has to begin


def main(arguments: list[str]) -> int:
    """Fill in the template, and submit it or print what would be."""
    given, rest = parser().parse_known_args(arguments)
    platform = PLATFORMS[given.platform]
    lacking = [name for name in platform.needs if not getattr(given, name)]
    if lacking:
        print(f"error: {given.platform} needs --{lacking[0]}", file=sys.stderr)
        return 2
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", given.name):
        print(f"error: --name={given.name}: expected lower-case letters, digits and '-', 40 at most", file=sys.stderr)
        return 2
    if not given.workdir.startswith(platform.workdirs):
        print(f"error: --workdir={given.workdir}: {given.platform} expects {platform.workdirs}…", file=sys.stderr)
        return 2
    text, file = filled(given, rest), Path(f"{given.name}-{platform.template}")
    command = [part.format(file=file, **vars(given)) for part in platform.submit]
    if given.dry_run:
        print(f"# {file}\n{text}\n# and then\n{shlex.join(command)}")
        return 0
    file.write_text(text)
    return subprocess.run(command, check=False).returncode


def filled(given: argparse.Namespace, rest: list[str]) -> str:
    """Return the platform's template for a training with the flags `rest` besides."""
    platform = PLATFORMS[given.platform]
    text = (TEMPLATES / platform.template).read_text()
    return Template(text).substitute(platform.fields(given, rest))


def train(given: argparse.Namespace, rest: list[str]) -> list[str]:
    """Return the arguments of ``jaxlab``."""
    return ["train", f"--config={given.config}", f"--workdir={given.workdir}", *rest]


def slurm(given: argparse.Namespace, rest: list[str]) -> dict[str, str]:
    """SLURM tells jaxlab itself how many processes there are."""
    return {
        "name": given.name, "nodes": str(given.nodes), "gpus": str(given.chips), "time": given.time,
        "folder": shlex.quote(str(ROOT)), "command": shlex.join([".venv/bin/jaxlab", *train(given, rest)]),
    }  # fmt: skip


def tpu(given: argparse.Namespace, rest: list[str]) -> dict[str, str]:
    """The hosts of a TPU VM find each other; each has the repository in its home folder."""
    remote = f"cd jaxlab && {shlex.join(['.venv/bin/jaxlab', *train(given, rest)])}"
    names = {name: shlex.quote(getattr(given, name)) for name in ("name", "project", "zone", "accelerator", "runtime")}
    return {**names, "spot": " --spot" if given.spot else "", "remote": shlex.quote(remote)}


def kubernetes(given: argparse.Namespace, rest: list[str]) -> dict[str, str]:
    """JSON is YAML: whatever stands in an argument stays as it is."""
    kind = "google.com/tpu" if given.tpu else "nvidia.com/gpu"
    selector = dict(pair.split("=", 1) for pair in given.selector.split(",") if pair)
    return {
        "name": given.name, "nodes": str(given.nodes), "image": json.dumps(given.image),
        "arguments": json.dumps(train(given, rest)), "selector": json.dumps(selector),
        "limits": json.dumps({kind: str(given.chips)}),
    }  # fmt: skip


def skypilot(given: argparse.Namespace, rest: list[str]) -> dict[str, str]:
    """The command is one line of a shell script within YAML's block."""
    return {
        "name": given.name, "nodes": str(given.nodes), "accelerator": json.dumps(given.accelerator),
        "command": shlex.join(["jaxlab", *train(given, rest)]),
    }  # fmt: skip


def sagemaker(given: argparse.Namespace, rest: list[str]) -> dict[str, str]:
    """Its own outputs, of which there are none, want a place in S3."""
    return {
        "name": json.dumps(given.name), "image": json.dumps(given.image), "role": json.dumps(given.role),
        "arguments": json.dumps(train(given, rest)), "workdir": json.dumps(given.workdir),
        "instance": json.dumps(given.accelerator), "nodes": str(given.nodes),
    }  # fmt: skip


def vertex(given: argparse.Namespace, rest: list[str]) -> dict[str, str]:
    """The first pool has one machine, the second the others: so Vertex AI wants it."""
    machine, _, accelerator = given.accelerator.partition(":")
    spec: dict[str, Any] = {"machineType": machine}
    if accelerator:
        spec |= {"acceleratorType": accelerator, "acceleratorCount": given.chips}
    pool = {
        "machineSpec": spec,
        "replicaCount": 1,
        "containerSpec": {"imageUri": given.image, "args": train(given, rest)},
    }
    others = [{**pool, "replicaCount": given.nodes - 1}] if given.nodes > 1 else []
    return {"pools": json.dumps([pool, *others])}


PLATFORMS = {
    "slurm": Platform("slurm.sh", ("sbatch", "{file}"), slurm),
    "tpu": Platform("tpu.sh", ("bash", "{file}"), tpu, ("project", "zone", "accelerator", "runtime")),
    "kubernetes": Platform("kubernetes.yaml", ("kubectl", "apply", "--filename={file}"), kubernetes, ("image",)),
    "skypilot": Platform("skypilot.yaml", ("sky", "jobs", "launch", "--yes", "{file}"), skypilot, ("accelerator",)),
    "sagemaker": Platform(
        "sagemaker.json", ("aws", "sagemaker", "create-training-job", "--cli-input-json=file://{file}"), sagemaker,
        ("image", "role", "accelerator"), "s3://",
    ),
    "vertex": Platform(
        "vertex.yaml",
        ("gcloud", "ai", "custom-jobs", "create", "--region={zone}", "--display-name={name}", "--config={file}"),
        vertex, ("image", "zone", "accelerator"),
    ),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of the launcher's own flags."""
    made = argparse.ArgumentParser(description="Start a training on a cluster.", allow_abbrev=False)
    made.add_argument("platform", choices=PLATFORMS)
    made.add_argument("--config", required=True, help="as for jaxlab train")
    made.add_argument("--workdir", required=True, help="gs://…, s3://… or a folder that all hosts see")
    made.add_argument("--name", default="jaxlab", help="of the job")
    made.add_argument("--nodes", type=int, default=1, help="hosts, a process each")
    made.add_argument("--chips", type=int, default=8, help="accelerators a host")
    made.add_argument("--time", default="24:00:00", help="SLURM: after which the job goes back into the queue")
    made.add_argument("--project", default="", help="Google Cloud's project")
    made.add_argument("--zone", default="", help="Google Cloud's zone; for Vertex AI the region")
    made.add_argument(
        "--accelerator", default="", help="v5litepod-8, H100:8, ml.p5.48xlarge, a3-highgpu-8g:NVIDIA_H100_80GB"
    )
    made.add_argument("--runtime", default="v2-alpha-tpuv5-lite", help="the TPU VM's software version")
    made.add_argument("--spot", action="store_true", help="a TPU VM that may be taken away, and costs less")
    made.add_argument("--image", default="", help="built from scripts/launch/Dockerfile")
    made.add_argument("--selector", default="", help="Kubernetes' node labels, as KEY=VALUE,KEY=VALUE")
    made.add_argument("--tpu", action="store_true", help="Kubernetes: TPUs, not GPUs")
    made.add_argument("--role", default="", help="SageMaker's role ARN")
    made.add_argument("--dry-run", action="store_true", help="print what would run")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
