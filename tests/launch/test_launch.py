"""What the launcher hands to a platform: every argument as it was given, in files that the platform can read."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "scripts/launch/launch.py"
ODD = ['--config.a.b=it\'s "odd" $HOME `x` \\ ü', "--config.c=(1,2)"]
PLATFORMS = {
    "slurm": ["--nodes=2", "--workdir=/shared/run"],
    "tpu": ["--project=p", "--zone=z", "--accelerator=v5litepod-8", "--workdir=gs://bucket/runs/one"],
    "kubernetes": ["--image=image", "--nodes=2", "--workdir=gs://bucket/runs/one", "--selector=cloud.google.com/x=y"],
    "skypilot": ["--accelerator=H100:8", "--nodes=2", "--workdir=s3://bucket/runs/one"],
    "sagemaker": ["--image=image", "--role=arn:aws:iam::1:role/r", "--accelerator=ml.p5.48xlarge",
                  "--workdir=s3://bucket/runs/one", "--nodes=2"],
    "vertex": ["--image=image", "--zone=us-central1", "--accelerator=a3-highgpu-8g:NVIDIA_H100_80GB", "--nodes=3",
               "--workdir=gs://bucket/runs/one"],
}  # fmt: skip
TOOLS = {
    "slurm": "sbatch",
    "tpu": "gcloud",
    "kubernetes": "kubectl",
    "skypilot": "sky",
    "sagemaker": "aws",
    "vertex": "gcloud",
}


def launch(platform, *more, cwd, path=""):
    command = [sys.executable, str(LAUNCH), platform, "--config=configs/digits_cnn.py", *PLATFORMS[platform], *more]
    environment = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def tool(folder, name, body=""):
    """Make a program that writes down its arguments, one a line, and then does what `body` says."""
    path = folder / name
    path.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" >> "{folder}/{name}.log"\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = found
    spec.loader.exec_module(found)
    return found


def test_every_platform_is_tried():
    assert set(PLATFORMS) == set(module(LAUNCH).PLATFORMS)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_dry_run_starts_nothing_and_shows_the_file_that_would_be_handed_over(platform, tmp_path):
    tool(tmp_path, TOOLS[platform], "exit 0")
    dry = launch(platform, *ODD, "--dry-run", cwd=tmp_path, path=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert not list(tmp_path.glob("*.log")), "something was started"
    assert not list(tmp_path.glob("jaxlab-*"))
    done = launch(platform, *ODD, cwd=tmp_path, path=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("jaxlab-*")
    assert file.read_text() in dry.stdout
    assert dry.stdout.rstrip().endswith(file.name) or file.name in dry.stdout.splitlines()[-1]
    assert (tmp_path / f"{TOOLS[platform]}.log").exists()


def arguments_of(platform, text):
    """Return what `jaxlab` gets, from the file of a platform."""
    yaml = pytest.importorskip("yaml")
    if platform == "kubernetes":
        (job,) = yaml.safe_load(text)["spec"]["replicatedJobs"]
        (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
        return container["args"]
    if platform == "sagemaker":
        return json.loads(text)["AlgorithmSpecification"]["ContainerArguments"]
    first, *others = yaml.safe_load(text)["workerPoolSpecs"]
    assert all(other["containerSpec"] == first["containerSpec"] for other in others)
    return first["containerSpec"]["args"]


@pytest.mark.parametrize("platform", ["kubernetes", "sagemaker", "vertex"])
def test_odd_arguments_reach_a_container_as_they_were_given(platform, tmp_path):
    tool(tmp_path, TOOLS[platform])
    launch(platform, *ODD, cwd=tmp_path, path=tmp_path)
    (file,) = tmp_path.glob("jaxlab-*")
    arguments = arguments_of(platform, file.read_text())
    assert arguments[-2:] == ODD
    assert arguments[0] == "train"
    assert arguments[2] in PLATFORMS[platform]


def run_script(text, folder, **variables):
    """Run the shell script that a platform runs, with `jaxlab` and the platform's tools from `folder`."""
    script = folder / "script.sh"
    script.write_text(text.replace(str(ROOT), str(folder)))
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(["bash", str(script)], cwd=folder, env={**os.environ, "PATH": path, **variables})


def seen(folder, name):
    log = folder / f"{name}.log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(("code", "again"), [(0, False), (1, False), (2, False), (3, False), (75, True)])
def test_slurm_puts_a_job_back_into_the_queue_when_it_may_go_on_and_only_then(code, again, tmp_path):
    text = module(LAUNCH).filled(parsed("slurm"), ODD)
    tool(tmp_path, "srun", f"exit {code}")
    tool(tmp_path, "scontrol")
    assert run_script(text, tmp_path, SLURM_JOB_ID="7").wait(30) == code
    assert seen(tmp_path, "srun")[-2:] == ODD
    assert seen(tmp_path, "scontrol") == (["requeue", "7"] if again else [])


def test_slurms_warning_reaches_the_training_which_saves_and_goes_back_into_the_queue(tmp_path):
    tool(tmp_path, "srun", "trap 'sleep 0.5; exit 75' TERM; while true; do sleep 0.1; done")
    tool(tmp_path, "scontrol")
    process = run_script(module(LAUNCH).filled(parsed("slurm"), []), tmp_path, SLURM_JOB_ID="7")
    while not seen(tmp_path, "srun"):
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75
    assert seen(tmp_path, "scontrol") == ["requeue", "7"]


def parsed(platform):
    flags = [platform, "--config=configs/digits_cnn.py", *PLATFORMS[platform]]
    return module(LAUNCH).parser().parse_known_args(flags)[0]


def test_a_tpu_vm_is_made_once_and_the_training_started_again_after_75_alone(tmp_path):
    count = tmp_path / "count"
    tool(tmp_path, "gcloud", f'''
if [[ "$*" == *" describe "* ]]; then exit 1; fi
if [[ "$*" == *" ssh "* ]]; then echo x >> "{count}"; [ "$(wc -l < "{count}")" -lt 3 ] && exit 75; exit 2; fi
''')  # fmt: skip
    assert run_script(module(LAUNCH).filled(parsed("tpu"), ODD), tmp_path).wait(30) == 2
    assert len(count.read_text().splitlines()) == 3
    said = seen(tmp_path, "gcloud")
    assert said.count("create") == 1
    (command, *_) = [line.removeprefix("--command=") for line in said if line.startswith("--command=")]
    assert "--workdir=gs://bucket/runs/one" in command
    echoed = subprocess.run(["bash", "-c", f"set -- {command.partition('jaxlab train ')[2]}; printf '%s\\n' \"$@\""],
                            capture_output=True, text=True, check=True)  # fmt: skip
    assert echoed.stdout.splitlines()[-2:] == ODD


@pytest.mark.parametrize(
    ("platform", "flags", "problem"),
    [
        ("sagemaker", ["--workdir=gs://b/x"], "--workdir=gs://b/x: sagemaker expects s3://"),
        ("tpu", ["--project="], "tpu needs --project"),
        ("slurm", ["--name=My Job"], "--name=My Job: expected"),
    ],
)
def test_what_a_platform_cannot_do_is_told_before_it_is_asked(platform, flags, problem, tmp_path):
    done = launch(platform, *flags, "--dry-run", cwd=tmp_path)
    assert done.returncode == 2
    assert problem in done.stderr


def entry():
    return module(ROOT / "scripts/launch/entry.py")


def test_a_container_learns_from_its_platform_which_process_it_is():
    flags = entry().flags
    kubernetes = {"JAXLAB_COORDINATOR": "a.b:1", "JAXLAB_PROCESSES": "2", "JOB_COMPLETION_INDEX": "1"}
    assert flags(kubernetes, {}) == ["--coordinator=a.b:1", "--processes=2", "--process=1"]
    assert flags({**kubernetes, "JAXLAB_PROCESSES": "1", "JOB_COMPLETION_INDEX": "0"}, {}) == []
    hosts = {"hosts": ["algo-1", "algo-2", "algo-3"], "current_host": "algo-3"}
    assert flags({}, hosts) == ["--coordinator=algo-1:8476", "--processes=3", "--process=2"]
    cluster = {"workerpool0": ["v0:2222"], "workerpool1": ["v1:2222", "v2:2222"]}
    spec = {"cluster": cluster, "task": {"type": "workerpool1", "index": 1}}
    assert flags({"CLUSTER_SPEC": json.dumps(spec)}, {}) == ["--coordinator=v0:8476", "--processes=3", "--process=2"]
    assert flags({}, {}) == []


@pytest.mark.parametrize(("codes", "expected"), [([0], 0), ([75, 75, 0], 0), ([75, 3], 3), ([2], 2)])
def test_a_container_goes_on_after_75_and_ends_with_anything_else(codes, expected, tmp_path, monkeypatch):
    left = tmp_path / "left"
    left.write_text(" ".join(map(str, codes)))
    program = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); a, *b = p.read_text().split(); " \
              "p.write_text(' '.join(b)); sys.exit(int(a))"  # fmt: skip
    loaded = entry()
    monkeypatch.setattr(loaded, "COMMAND", (sys.executable, "-c", program))
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert loaded.main([str(left)]) == expected
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert left.read_text() == ""


@pytest.mark.parametrize("platform", ["slurm", "tpu"])
def test_the_shell_scripts_are_clean(platform, tmp_path):
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    file = tmp_path / "script.sh"
    file.write_text(module(LAUNCH).filled(parsed(platform), ["--config.train.steps=10"]))
    subprocess.run([shellcheck, str(file)], check=True)


def test_sagemakers_request_is_one_that_its_client_takes(tmp_path):
    botocore = pytest.importorskip("botocore.session")
    from botocore.validate import ParamValidator

    model = botocore.get_session().get_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape
    request = json.loads(module(LAUNCH).filled(parsed("sagemaker"), ODD))
    report = ParamValidator().validate(request, model)
    assert not report.has_errors(), report.generate_report()
