"""The README's examples run as they stand, and what it points at is there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxlab

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def blocks(language):
    return [text for name, text in BLOCKS if name == language]


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """The first Python block in a file of its own, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_experiment", raising=False)
    (tmp_path / "my_experiment.py").write_text(blocks("python")[0])
    return tmp_path


@pytest.mark.slow
def test_the_example_and_the_commands_under_it_do_what_they_say(experiment):
    commands = [line.partition("#")[0] for line in next(b for b in blocks("bash") if "my_experiment" in b).splitlines()]
    assert [command.split()[1] for command in commands] == ["check", "train", "evaluate"]
    run = "import sys; from jaxlab.cli import main; sys.exit(main())"
    for command in commands:
        elsewhere = experiment if "--config" in command else experiment / ".."
        arguments = command.replace("=runs", f"={experiment}/runs").split()[1:]
        result = subprocess.run(
            [sys.executable, "-c", run, *arguments],
            cwd=elsewhere,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert result.returncode == 0, result.stderr
    evaluated = json.loads(result.stdout.splitlines()[-1])
    assert evaluated["metrics"]["valid/accuracy"] > 0.95
    assert json.loads((experiment / "runs/mine/config.json").read_text())["model"]["width"] == 64


@pytest.mark.slow
def test_the_notebook_example_runs_and_gives_what_its_comments_say(experiment):
    names = {"jaxlab": jaxlab}
    exec(compile(blocks("python")[1], "README.md", "exec"), names)
    run = names["run"]
    assert {"train/loss", "valid/accuracy"} <= set(run.history)
    assert (run.workdir / "plots/learning_curve.png").stat().st_size > 1000
    assert list((run.workdir / "predictions").glob("valid-*.parquet"))


def test_the_example_is_about_twenty_lines():
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) <= 22


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_every_file_that_a_page_links_to_exists(page):
    folder = (ROOT / page).parent
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()) if "://" not in link]
    assert [link for link in links if not (folder / link).exists()] == []


def test_every_path_that_the_pages_name_in_code_exists():
    text = README + (ROOT / "docs/architecture.md").read_text()
    paths = set(re.findall(r"`((?:jaxlab|tests|scripts|docs|configs)/[\w./]+\.\w+)", text))
    assert paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_the_scripts_are_the_commands(script):
    run = [sys.executable, str(ROOT / f"scripts/{script}.py"), "--help"]
    result = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0
    assert "--workdir" in result.stdout
