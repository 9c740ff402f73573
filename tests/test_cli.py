"""The command line: exit codes, messages that name the nearest, one JSON object as the last line of stdout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxlab import cli

ROOT = Path(__file__).parents[1]
DIGITS = str(ROOT / "configs" / "digits_cnn.py")
FASHION = str(ROOT / "configs" / "fashion_mnist_cnn.py")
PROGRAM = "import sys; from jaxlab.cli import main; sys.exit(main())"


@pytest.fixture
def jaxlab(capsys, monkeypatch, tmp_path):
    """Run a command in this process, in an empty folder; return its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments):
        try:
            code = cli.main(list(map(str, arguments)))
        except SystemExit as ended:  # as argparse leaves
            code = ended.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def spawn(*arguments, cwd, code=PROGRAM):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )


def failure(ran, *parts):
    """Assert an error of usage: exit code 2, nothing on stdout, every part on stderr, no traceback."""
    code, out, err = ran
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    for part in parts:
        assert part in err
    return err


TRAIN = ("train", f"--config={DIGITS}", "--workdir=run")


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("--config.train.stepz=5", ("config.train.stepz", "did you mean 'steps'", "digits_cnn.py")),
        ("--config.trian.steps=5", ("config.trian", "did you mean 'train'")),
        ("--config.train.steps=many", ("config.train.steps='many'", "expected an integer", "1200")),
        ("--config.train.steps=2.5", ("expected an integer",)),
        ("--config.train.steps=0", ("config.train.steps=0", "1 or more")),
        ("--config.train=5", ("config.train", "group", "steps")),
        ("--config.optimizer.learning_rate.peak=fast", ("expected a number", "0.003")),
        ("--config.data.augment[3].pixels=1", ("no element [3]",)),
        ("--config.model.factory=nowhere.at_all:make", ("config.model.factory", "cannot import 'nowhere.at_all'")),
        ("--config.model.factory=jaxlab.models.cnn:mak", ("no 'mak'", "did you mean 'make'")),
        ("--config.model.factory=cnn", ("'module:attribute'",)),
        ("--config.model.widht=3", ("no field 'widht'",)),
        ("--config.data.valid.split=vaild", ("no split 'vaild'", "did you mean 'valid'")),
        ("--config.objective.target=lable", ("'lable'", "the data has image, label")),
        ("--config.train.best=valid/acuracy", ("valid/acuracy", "did you mean 'valid/accuracy'")),
        ("--config.train.precision=float31", ("config.train.precision='float31'",)),
        ("--config.parallel.strategy=jitt", ("config.parallel.strategy", "did you mean 'jit'")),
        ("--config.=3", ("config.",)),
    ],
)  # fmt: skip
def test_a_wrong_override_ends_with_2_naming_the_field_and_what_was_expected_before_any_directory(jaxlab, flag, parts):
    failure(jaxlab(*TRAIN, flag), *parts)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((*TRAIN, "--wrkdir=x"), ("--wrkdir", "train", "did you mean '--workdir'")),
        (("train", f"--confg={DIGITS}", "--workdir=run"), ("--confg", "did you mean '--config'")),
        (("check", "--config", DIGITS, "--steps", "5"), ("--steps: no such flag of check",)),
        (("check", f"--config={DIGITS}", "--config.train.grad_accumulation=3"),
         ("config.train.grad_accumulation=3: expected a divisor of config.train.batch_size=128",)),
        (("doctor", "extra"), ("extra",)),
        (("doctor", "--config.train.steps=5"), ("--config.train.steps: doctor takes no config",)),
        (("evaluate", "--workdir=run", "--config.seed=1"), ("evaluate takes no config",)),
        (("tarin",), ("tarin", "train", "doctor")),
        ((), ("COMMAND",)),
        (("train", "--workdir=run"), ("--config",)),
        (("train", f"--config={DIGITS}"), ("--workdir",)),
        (("train", "--config=configs/none.py", "--workdir=run"), ("configs/none.py", "does not exist")),
        (("train", f"--config={DIGITS}s", "--workdir=run"), ("does not exist", f"did you mean {DIGITS!r}")),
        (("train", f"--config={DIGITS}:mpl", "--workdir=run"), ("no preset 'mpl'", "did you mean 'mlp'")),
        (("evaluate", "--workdir=nothing"), ("holds no run", "config.json")),
        (("evaluate", "--workdir=.", "--batch_size=some"), ("--batch_size",)),
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_2_and_says_what_is_right(jaxlab, arguments, parts):
    failure(jaxlab(*arguments), *parts)


def test_a_traceback_is_shown_with_debug_and_only_then(jaxlab):
    wrong = (*TRAIN, "--config.train.stepz=5")
    failure(jaxlab(*wrong), "did you mean")
    for arguments in (("--debug", *wrong), (*wrong, "--debug")):
        code, out, err = jaxlab(*arguments)
        assert (code, out) == (2, "")
        assert "Traceback" in err
        assert "did you mean 'steps'" in err.splitlines()[-1]


def test_a_data_set_that_is_not_prepared_ends_with_2_and_the_command_that_prepares_it(jaxlab, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))
    ran = jaxlab("train", f"--config={FASHION}", "--workdir=run")
    failure(ran, "fashion_mnist is not prepared", "python scripts/prepare_data.py fashion_mnist --data_dir=")
    assert not Path("run").exists()


PLUGIN = """
import dataclasses
from jaxlab.core.config import spec
from jaxlab.run.base import base_config
import jaxlab.data.digits as digits

def source(title: str = "", shuffled: bool = True, names: tuple[str, ...] = ("a",), share: float | None = None):
    return digits.make("valid")

def get_config():
    config = base_config()
    config.data.train = spec("plugin_of_cli_test:source")
    config.model = spec("jaxlab.models.mlp:make", hidden=(4,))
    config.objective = spec("jaxlab.objectives.classify:make")
    config.optimizer = spec("optax:sgd", learning_rate=0.1)
    return config

def keyword():
    config = get_config()
    config.model = spec("jaxlab.models.mlp:make", hiden=(4,))
    return config

def broken():
    raise ZeroDivisionError("by the author")
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    path = tmp_path / "plugin_of_cli_test.py"
    path.write_text(PLUGIN)
    yield path
    sys.modules.pop(path.stem, None)


@pytest.mark.parametrize(
    ("flags", "path", "value"),
    [
        (("--config.train.steps=5",), "train.steps", 5),
        (("--config.train.steps", "5"), "train.steps", 5),
        (("--config.train.steps=2**4",), "train.steps", 16),
        (("--config.data.train.shuffled=false",), "data.train.shuffled", False),
        (("--config.data.train.shuffled=false", "--config.data.train.shuffled"), "data.train.shuffled", True),
        (("--config.data.train.title=two words = and a sign",), "data.train.title", "two words = and a sign"),
        (("--config.data.train.title", "two words"), "data.train.title", "two words"),
        (("--config.data.train.names=x,[y]",), "data.train.names", ["x", "[y]"]),
        (("--config.data.train.names=.*[/]kernel",), "data.train.names", [".*[/]kernel"]),
        (("--config.optimizer.learning_rate=-1e-3",), "optimizer.learning_rate", -1e-3),
        (("--config.optimizer.learning_rate", "-1e-3"), "optimizer.learning_rate", -1e-3),
        (("--config.data.train.share=0.5",), "data.train.share", 0.5),
        (("--config.train.ema=0.9", "--config.train.ema=none"), "train.ema", None),
        (("--config.model.hidden=8,16",), "model.hidden", [8, 16]),
    ],
)
def test_an_override_in_any_form_arrives_as_a_value_of_the_fields_type(jaxlab, plugin, flags, path, value):
    code, out, err = jaxlab("check", "--config", plugin, *flags)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["config"][path] == value


@pytest.mark.parametrize(
    ("preset", "parts"),
    [
        ("keyword", ("jaxlab.models.mlp:make takes no keyword 'hiden'", "did you mean 'hidden'", "plugin_of_cli_test")),
        ("broken", ("broken() fails with ZeroDivisionError: by the author",)),
    ],
)
def test_a_config_file_that_fails_ends_with_2_and_names_the_file_and_the_reason(jaxlab, plugin, preset, parts):
    failure(jaxlab("check", f"--config={plugin}:{preset}"), *parts)


@pytest.mark.parametrize("arguments", [("doctor",), ("check", f"--config={DIGITS}:mlp")])
def test_the_result_is_one_json_object_and_all_of_stdout(jaxlab, arguments):
    code, out, err = jaxlab(*arguments)
    assert code == 0, err
    (line,) = out.splitlines()
    result = json.loads(line)
    assert isinstance(result, dict)
    assert result["warnings"] == [
        warning.removeprefix("warning: ") for warning in err.splitlines() if "warning: " in warning
    ]


@pytest.mark.slow
def test_help_names_every_command_and_starts_without_jax(tmp_path):
    loaded = "print('jax' in sys.modules, 'flax' in sys.modules)"
    light = f"import sys\nfrom jaxlab.cli import main\ntry: main()\nfinally: {loaded}"
    for arguments in (["--help"], ["train", "--help"], ["evaluate", "--help"]):
        ran = spawn(*arguments, cwd=tmp_path, code=light)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.splitlines()[-1] == "False False"
    commands = spawn("--help", cwd=tmp_path).stdout
    assert all(f"\n    {name} " in commands for name in ("train", "check", "audit", "evaluate", "doctor"))


@pytest.mark.slow
def test_the_process_exits_with_the_code_and_prints_the_result_last(tmp_path):
    wrong = spawn(*TRAIN, "--config.train.stepz=5", cwd=tmp_path)
    failure((wrong.returncode, wrong.stdout, wrong.stderr), "did you mean 'steps'")
    right = spawn("check", f"--config={DIGITS}:mlp", cwd=tmp_path)
    assert right.returncode == 0, right.stderr
    (line,) = right.stdout.splitlines()
    found = json.loads(line)
    assert found["parameter_count"] == 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    assert "parameters" in right.stderr
    assert list(tmp_path.iterdir()) == []
