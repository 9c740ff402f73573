"""`jaxlab runs`: the index always says what the directories say, and conditions choose what a plain loop would."""

import json
import multiprocessing
import os
import random
import shutil
from pathlib import Path

import pytest
import small_study

import jaxlab
from jaxlab.cli import main
from jaxlab.core import record
from jaxlab.core.errors import UsageError
from jaxlab.study.index import FILE, runs
from jaxlab.study.query import condition, order


def make_run(folder: Path, seed: int = 0, steps: int = 30, finished: bool = True, accuracy: float = 0.5) -> None:
    config = jaxlab.override(small_study.base(), {"seed": seed, "train.steps": steps})
    record.open_run(folder, config, {})
    log = record.MetricsLog(folder, 0)
    log.write(10, {"train/loss": 1.0, "wall": 3.0})
    log.write(steps, {"valid/accuracy": accuracy, "wall": 5.0})
    log.close()
    if finished:
        record.finish(folder, {"status": "finished", "step": steps, "wall": 5.0, "metrics": {}, "best": None})


def change(root: Path, drawn: random.Random) -> None:
    """Do one of the things that happen to runs."""
    there = sorted(path.parent for path in root.rglob(record.CONFIG))
    what = drawn.choice(["new", "new", "finish", "remove", "spoil", "evaluate", "index"])
    if what == "new" or not there:
        make_run(
            root / drawn.choice("ab") / str(drawn.randrange(10**6)), drawn.randrange(5), finished=drawn.random() < 0.5
        )
        return
    run = drawn.choice(there)
    if what == "finish":
        record.finish(run, {"status": "finished", "step": 30, "wall": 9.0, "metrics": {}, "best": None})
    elif what == "remove":
        shutil.rmtree(run)
    elif what == "spoil":
        (run / record.CONFIG).write_text("{")
    elif what == "evaluate":
        record.write_json(run / "evaluation.json", {"test-30": {"metrics": {"test/accuracy": drawn.random()}}})
    elif (root / FILE).exists():
        (root / FILE).write_bytes(drawn.choice([b"", b"no index", (root / FILE).read_bytes()[:3000]]))


@pytest.mark.parametrize("seed", range(6))
def test_an_index_after_any_changes_says_what_a_new_one_does(tmp_path, seed):
    drawn = random.Random(seed)
    for _ in range(12):
        change(tmp_path, drawn)
        found = runs(tmp_path, sort="path")
        shutil.copytree(tmp_path, tmp_path.with_name("copy"), copy_function=shutil.copy2)
        (tmp_path.with_name("copy") / FILE).unlink(missing_ok=True)
        fresh = runs(tmp_path.with_name("copy"), sort="path")
        shutil.rmtree(tmp_path.with_name("copy"))
        for facts in (*found, *fresh):
            facts.pop("problem", None)  # names the folder
        assert found == fresh
        assert [facts["path"] for facts in found] == sorted(facts["path"] for facts in found)


def test_a_listing_says_how_runs_stand_and_writes_nothing_into_them(tmp_path):
    make_run(tmp_path / "done", seed=1, accuracy=0.9)
    make_run(tmp_path / "deep" / "er" / "killed", seed=2, finished=False)
    make_run(tmp_path / "going", seed=3, finished=False)
    holder = {"host": os.uname().nodename, "pid": os.getpid(), "since": "now"}
    (tmp_path / "going" / record.LOCK).write_text(json.dumps(holder))
    (tmp_path / "spoilt").mkdir()
    (tmp_path / "spoilt" / record.CONFIG).write_text("[]")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != FILE}
    found = {facts["path"]: facts for facts in runs(tmp_path)}
    assert {path: facts["status"] for path, facts in found.items()} == {
        "done": "finished", "deep/er/killed": "stopped", "going": "running", "spoilt": "unreadable",
    }  # fmt: skip
    assert found["done"]["valid/accuracy"] == 0.9
    assert found["done"]["seed"] == 1
    assert "config.json" in found["spoilt"]["problem"]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != FILE}


def test_conditions_choose_what_a_loop_chooses():
    drawn = random.Random(0)
    rows = [
        {"path": str(i), "seed": i % 4, "model.dropout": drawn.choice([0.0, 0.1]), "status": drawn.choice(["a", "b"]),
         **({"valid/accuracy": drawn.random()} if i % 3 else {})}
        for i in range(60)
    ]  # fmt: skip
    names = {name for row in rows for name in row}
    for text, oracle in {
        "valid/accuracy > 0.5": lambda r: r.get("valid/accuracy", 0) > 0.5,
        "config.model.dropout == 0.1 and seed in (1, 2)": lambda r: r["model.dropout"] == 0.1 and r["seed"] in (1, 2),
        "not (status == 'a' or seed < 2)": lambda r: not (r["status"] == "a" or r["seed"] < 2),
        "0.2 <= valid/accuracy < 0.4": lambda r: 0.2 <= r.get("valid/accuracy", 9) < 0.4,
        "valid/accuracy != 2": lambda r: "valid/accuracy" in r,  # absent is no number
        "": lambda r: True,
    }.items():
        assert list(filter(condition(text, names), rows)) == list(filter(oracle, rows)), text
    found = order("seed,-valid/accuracy", names)(rows)
    keys = [(r["seed"], "valid/accuracy" not in r, -r.get("valid/accuracy", 0)) for r in found]
    assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("valid/acuracy > 1", "did you mean 'valid/accuracy'"), ("seed >", "cannot be read at character"),
        ("seed", "is no comparison"), ("__import__('os').system('x') == 1", "no run has"),
        ("seed < 'a'", "cannot be compared"), ("[].append(1) or seed == 1", "is no comparison"),
    ],
)  # fmt: skip
def test_a_condition_that_cannot_be_used_says_why(text, words):
    with pytest.raises(UsageError, match=words):
        condition(text, {"seed", "valid/accuracy"})({"seed": 1, "valid/accuracy": 0.5})


def _list(root: str) -> int:
    return len(runs(root))


def test_two_at_once_and_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    for seed in range(8):
        make_run(tmp_path / str(seed), seed)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_list, [str(tmp_path)] * 6) == [8] * 6
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()  # root may write anywhere: a folder in its place cannot be opened either
    assert len(runs(tmp_path)) == 8


def test_the_command_shows_what_differs(tmp_path, capsys):
    make_run(tmp_path / "one", seed=1, accuracy=0.7)
    make_run(tmp_path / "two", seed=2, accuracy=0.8)
    assert main(["runs", str(tmp_path), "--where", "valid/accuracy > 0.6", "--sort=-valid/accuracy"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["path"] for row in result["runs"]] == ["two", "one"]
    assert result["runs"][0] == {
        "path": "two", "status": "finished", "step": 30, "seconds": 5.0, "seed": 2, "valid/accuracy": 0.8,
    }  # fmt: skip
    assert main(["runs", str(tmp_path), "--columns", "sed"]) == 2
    assert "did you mean 'seed'" in capsys.readouterr().err
