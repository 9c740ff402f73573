"""Malformed input: 5,000 configs and overrides and 500 data files, none of which may end in a traceback.

Each goes through the command line's own function, in this process, and has to end with 0, where the damage left
something valid, or with 2 and one sentence that begins with ``error:``.

``python scripts/faults_inputs.py [--configs=5000] [--files=500]`` prints one JSON object as the last line; exit code 1
where any ended otherwise. Hypothesis draws them from a fixed seed.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from PIL import Image
from safetensors.numpy import save_file

from jaxlab import cli
from jaxlab.core.config import flatten, spec, to_json
from jaxlab.core.errors import UsageError
from jaxlab.core.types import Source
from jaxlab.data import image_folder, memmap_source, splits, table_source, text_source
from jaxlab.data.arrays import ArraySource
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.tokenize import load_tokenizer, train_tokenizer
from jaxlab.models.weights import files as weights
from jaxlab.run.base import base_config

Case = dict[str, Any]

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.5, 1e-300, 1e308, float("nan"),
    float("inf"), -float("inf"), "", " ", "none", "nan", "0", "\0", "\n", "é", "\ud800", "a" * 5000, "../../etc", "x:y",
    [], [[]], {}, [0], [-1], [1, 2, 3], ["a"], [None], [1.5, "a"], {"": 1}, {"a": {"b": {}}}, [{"factory": "x:y"}],
]  # fmt: skip
FACTORIES = [
    "optax:adamw", "optax:sgd", "optax:chain", "optax:constant_schedule", "optax:nothing", "optax", "optax:", ":sgd",
    "optax:Params", "optax:GradientTransformation", "jaxlab.models.mlp:make", "jaxlab.models.lstm:make",
    "jaxlab.models.cnn:make", "jaxlab.models.transformer:nothing", "jaxlab.data.digits:make",
    "jaxlab.data.table_source:make", "jaxlab.data.mixture:make", "jaxlab.data.images:random_shift",
    "jaxlab.data.table_numeric:scale", "jaxlab.objectives.classify:make", "jaxlab.objectives.regress:make",
    "jaxlab.metrics.classify:accuracy", "jaxlab.metrics.scores:roc_auc", "jaxlab.track.console:make",
    "jaxlab.optim.schedules:warmup_cosine", "jaxlab.core.config:build", "jax.nn:relu", "flax.linen:Dense",
    "math:pi", "os:getcwd", "builtins:dict", "no_such_module:make", "..:x", "é:ü", "optax:adamw.x", 3, None, [], {},
]  # fmt: skip
TEXTS = [
    "", " ", "none", "None", "nan", "inf", "-inf", "true", "1e999", "9" * 400, "2**2**2**2", "10**64", "1/0", "-1", "0",
    "1e308*10", "[", "(", ")" * 50, "(" * 500, "[" * 5000, "1,", ",", "a,b", "'", '"', "\\", "\0", "\n", "\ud800", "é",
    "{}", "lambda: 1", "__import__('os')", "x.y", "1j", "0x10", "1_0", "1__0", "--config", "=", "a=b", "True,False",
    "1.5", "1e3", "(1,(2,(3,)))", "b'x'", "...", "not 1", "~1", "5%0", "-2**0.5", "((1)*64)**64", "None,", "nan//1",
]  # fmt: skip

FIELDS = [
    b"", b"nan", b"NaN", b"inf", b"-Infinity", b"1e999", b"9" * 5000, b"a" * 100_000, b'"', b'""', b"\0", b"\xff\xfe",
    b"null", b"true", b"{}", b"[]", b"[1, 2]", b"-1", b"1.5", b"2024-13-45", b"a,b,c", b"\n", b"\r",
    b"\xf0\x9f\x98\x80",
    b'"\\ud800"', b"1e400", b"99999999999999999999", b"'", b"{\"a\": 1, \"a\": 2}",
]  # fmt: skip
KINDS = {"picture": "pictures", "rows": "npy", "split": "row numbers", "tokenizer": "tokenizers", "w": "safetensors"}
ENDS = [".x", "[0]", "[-9]", "[99999999999]", "..", ".factory", "[", "é", " ", ".items", "\0"]


def base() -> ConfigDict:
    """Return a small config that is valid, with nodes in nodes, in tuples and optional values."""
    config = base_config()
    for split in ("train", "valid"):
        config.data[split] = spec("jaxlab.data.digits:make", split=split)
    config.data.augment = (spec("jaxlab.data.images:random_shift", pixels=1),)
    config.model = spec("jaxlab.models.mlp:make", hidden=(4,))
    config.objective = spec("jaxlab.objectives.classify:make", label_smoothing=0.1)
    config.metrics.accuracy = spec("jaxlab.metrics.classify:accuracy")
    config.optimizer = spec("optax:adamw", learning_rate=spec("jaxlab.optim.schedules:warmup_cosine", peak=0.1))
    config.train.steps, config.train.batch_size = 4, 8
    return config


BASE = json.loads(to_json(base()))
PATHS = [*flatten(base()), "data.train", "model", "optimizer.learning_rate", "train", "data.augment", "parallel.mesh"]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in JSON."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield (*path, name)
        yield from places(child, (*path, name))


PLACES = list(places(BASE))
FACTORY_PLACES = [place for place in PLACES if place[-1] == "factory"]
values = st.one_of(st.sampled_from(VALUES), st.sampled_from(FACTORIES), st.integers(), st.floats(), st.text(max_size=9))


@st.composite
def changed_json(draw: Callable[..., Any]) -> str:
    """Draw the text of a config of which up to three values are others, gone, renamed or of another depth."""
    config = json.loads(json.dumps(BASE))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(draw(st.sampled_from([PLACES, FACTORY_PLACES]))))
        holder = config
        with contextlib.suppress(
            KeyError, IndexError, TypeError, AttributeError
        ):  # an earlier change has put a text there
            for name in place[:-1]:
                holder = holder[name]
            spoil(draw, holder, place[-1])
    return json.dumps(config)


def spoil(draw: Callable[..., Any], holder: Any, name: Any) -> None:
    """Change one value of a holder."""
    kind = draw(st.sampled_from(["value", "value", "value", "factory", "gone", "renamed", "deep", "more"]))
    if kind == "value":
        holder[name] = draw(values)
    elif kind == "factory":
        holder[name] = draw(st.sampled_from(FACTORIES))
    elif kind == "gone":
        del holder[name]
    elif kind == "renamed":
        other = draw(st.one_of(st.text(max_size=5), st.sampled_from(["items", "lock", "a.b", "factory"])))
        holder[other] = holder.pop(name)
    elif kind == "deep":
        for _ in range(draw(st.sampled_from([1, 5, 90, 120]))):
            holder[name] = draw(st.sampled_from([[holder[name]], {"a": holder[name]}]))
    elif isinstance(holder, dict):
        holder[draw(st.text(max_size=9))] = draw(values)


@st.composite
def broken_text(draw: Callable[..., Any]) -> bytes:
    """Draw the bytes of a config that is cut off, has bytes of its own, or is nothing of the kind."""
    whole = json.dumps(BASE).encode()
    kind = draw(st.sampled_from(["cut", "inserted", "other", "deep", "bytes"]))
    place = draw(st.integers(0, len(whole) - 1))
    if kind == "cut":
        return whole[:place]
    if kind == "inserted":
        return whole[:place] + draw(st.binary(min_size=1, max_size=4)) + whole[place:]
    if kind == "deep":
        opening = draw(st.sampled_from(["[", '{"a":']))
        return (opening * draw(st.sampled_from([99, 1000, 100_000]))).encode()
    if kind == "bytes":
        return draw(st.binary(max_size=64))
    return json.dumps(draw(values)).encode()


@st.composite
def overrides(draw: Callable[..., Any]) -> list[str]:
    """Draw flags that override a config: wrong names, wrong texts, or a factory."""
    flags = []
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(PATHS))
        kind = draw(st.sampled_from(["text", "text", "text", "path", "factory", "any"]))
        text = draw(st.sampled_from(TEXTS))
        if kind == "path":
            path = draw(st.sampled_from(["", path])) + draw(st.one_of(st.text(max_size=8), st.sampled_from(ENDS)))
        elif kind == "factory":
            nodes = [path.removesuffix(".factory") for path in PATHS if path.endswith("factory")]
            path, text = f"{draw(st.sampled_from(nodes))}.factory", str(draw(st.sampled_from(FACTORIES)))
        elif kind == "any":
            text = draw(st.text(max_size=12))
        flags.append(f"--config.{path}={text}")
    return flags


@st.composite
def inputs(draw: Callable[..., Any]) -> Case:
    """Draw one malformed config, or a valid one with malformed overrides."""
    kind = draw(st.sampled_from(["config: values", "config: values", "overrides", "overrides", "config: text"]))
    if kind == "overrides":
        return {"kind": kind, "content": json.dumps(BASE).encode(), "flags": draw(overrides())}
    content = draw(broken_text()) if kind == "config: text" else draw(changed_json()).encode()
    return {"kind": kind, "content": content, "flags": []}


def checked(case: Case, folder: Path) -> str:
    """Return what is wrong with how ``jaxlab check`` ends on a case; empty where nothing is."""
    file = folder / "config.json"
    file.write_bytes(case["content"])
    return verdict(lambda: cli.main(["check", f"--config={file}", *case["flags"]]))


def verdict(command: Callable[[], int]) -> str:
    """Run a command and say what is wrong with its end: neither 0, nor 2 with one sentence."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = command()
    except BaseException as error:  # whatever comes out is what is looked for
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {error}"[:300]
    lines = said.getvalue().splitlines()
    sentences = [line for line in lines if line.startswith("error: ")]
    if code not in (0, 2) or (code == 2 and len(sentences) != 1) or "Traceback" in said.getvalue():
        return f"ended with {code}: {said.getvalue()[-300:]}"
    return ""


def drawn(strategy: st.SearchStrategy[Case], count: int, try_one: Callable[[Case], None]) -> None:
    """Give `count` cases that hypothesis draws to `try_one`, the same ones every time."""

    @settings(
        max_examples=count, database=None, derandomize=True, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def try_all(case: Case) -> None:
        try_one(case)

    try_all()


def count_losses(
    strategy: st.SearchStrategy[Case], count: int, judge: Callable[[Case, Path], str]
) -> list[dict[str, Any]]:
    """Return a row a kind of fault: how often it was tried, and how often it ended in another way than it should."""
    found: dict[str, list[str]] = {}

    with tempfile.TemporaryDirectory() as folder:

        def try_one(case: Case) -> None:
            said = judge(case, Path(folder))
            found.setdefault(case["kind"], []).append(said)
            if said:
                print(f"{case['kind']}: {said}\n  {str(case)[-600:]}", file=sys.stderr)

        drawn(strategy, count, try_one)
    return [
        {"fault": f"malformed {kind}", "runs": len(said), "losses": sum(map(bool, said))}
        for kind, said in sorted(found.items())
    ]


def make_files(folder: Path) -> dict[str, bytes]:
    """Write a sound file of every kind that sources read, and return their contents by name."""
    rng = np.random.default_rng(0)
    table = {"x": rng.normal(size=20), "n": np.arange(20), "word": ["red", "blü", "", "a,b"] * 5, "y": ["a", "b"] * 10}
    frame = pd.DataFrame(table)
    frame.to_csv(folder / "table.csv", index=False)
    (folder / "table.csv.gz").write_bytes(gzip.compress((folder / "table.csv").read_bytes()))
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    frame.to_parquet(folder / "table.parquet")
    (folder / "lines.txt").write_text("one line\nzwei Zeilen, ü\n\ntrois\n")
    (folder / "lines.txt.gz").write_bytes(gzip.compress((folder / "lines.txt").read_bytes()))
    picture = Image.fromarray(rng.integers(0, 255, (12, 10, 3), np.uint8))
    for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp"):
        picture.save(folder / f"picture.{kind}")
    np.save(folder / "rows.npy", rng.normal(size=(20, 3)), allow_pickle=False)
    source = ArraySource({"x": np.arange(20)}, {"name": "x"})
    splits.save(
        str(folder / "split.json"), {"train": splits.part(source, "train"), "valid": splits.part(source, "valid")}
    )
    for kind in ("byte", "character", "bpe", "unigram"):
        texts = ColumnSource({"text": np.array(["some text", "more of it"] * 9, object)})
        train_tokenizer(texts, kind, 300, folder / f"tokenizer-{kind}.json")
    save_file({"kernel": np.ones((3, 4), np.float32), "bias": np.ones(4, np.float16)}, folder / "w.safetensors")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@st.composite
def damaged(draw: Callable[..., Any], sound: bytes, others: list[bytes]) -> bytes:
    """Draw a file's content, spoilt."""
    place, some = draw(st.integers(0, max(0, len(sound) - 1))), draw(st.binary(min_size=1, max_size=9))
    pieces = re.split(rb"([,:\n])", sound)  # a field lies between two commas, colons or lines, where there are such
    at = 2 * draw(st.integers(0, len(pieces) // 2))
    kinds = {
        "cut": sound[:place],
        "inserted": sound[:place] + some + sound[place:],
        "changed": sound[:place] + some + sound[place + len(some) :],
        "field": b"".join([*pieces[:at], draw(st.sampled_from(FIELDS)), *pieces[at + 1 :]]),
        "empty": b"",
        "another format": draw(st.sampled_from(others)),
        "another encoding": sound.decode("latin-1").encode("utf-16"),
        "with a mark": b"\xef\xbb\xbf" + sound,
        "twice": sound + sound,
        "deep": draw(st.sampled_from([b"[", b'{"a":', b"[[1],"])) * draw(st.sampled_from([200, 100_000])),
    }
    return kinds[draw(st.sampled_from(sorted(kinds)))]


def data_files(files: dict[str, bytes]) -> st.SearchStrategy[Case]:
    """Return the strategy that draws a spoilt file of any kind."""

    def spoilt(name: str) -> st.SearchStrategy[Case]:
        kind = f"data: {KINDS.get(name.split('.', maxsplit=1)[0].split('-', maxsplit=1)[0]) or name.partition('.')[2]}"
        content = damaged(files[name], list(files.values()))
        return content.map(lambda content: {"kind": kind, "name": name, "content": content})

    return st.sampled_from(sorted(files)).flatmap(spoilt)


def read(case: Case, folder: Path) -> str:
    """Return what is wrong with how a source takes a file, as an error not meant for the user; empty if nothing is."""
    name, place = case["name"], folder / "files"
    shutil.rmtree(place, ignore_errors=True)
    file = place / ("a" if name.startswith("picture") else "") / name
    file.parent.mkdir(parents=True)
    file.write_bytes(case["content"])
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            source = opened(name, file, place)
            if source is not None:
                source.__getitems__(np.arange(len(source)))
    except UsageError as error:
        return "" if "\n" not in str(error).strip() else f"several lines: {error}"
    except Exception as error:  # whatever comes out is what is looked for
        return f"{name}: {type(error).__name__}: {error}"[:300]
    return ""


def opened(name: str, file: Path, place: Path) -> Source | None:
    """Return the source of a file of that name; None for what is read at once."""
    whole = ArraySource({"x": np.arange(20)}, {"name": "x"})
    readers: dict[str, Callable[[], Source | None]] = {
        "table": lambda: table_source.make(str(file), target="y"),
        "lines": lambda: text_source.lines(str(file)),
        "picture": lambda: image_folder.make(str(place), size=(4, 4)),
        "rows": lambda: memmap_source.make(str(place)),
        "split": lambda: splits.from_file(whole, str(file)),
        "tokenizer": lambda: tokenised(file),
        "w": lambda: weights.read(str(file)) and None,
    }
    return readers[re.split(r"[-.]", name)[0]]()


def tokenised(file: Path) -> None:
    """Read a tokenizer and use it."""
    tokenizer = load_tokenizer(file)
    tokenizer.decode(tokenizer.encode("a text"))


def run(configs: int = 5000, files: int = 500) -> list[dict[str, Any]]:
    """Return a row a kind of malformed input: ``fault``, ``runs`` and ``losses``."""
    logging.disable(logging.CRITICAL)
    rows = count_losses(inputs(), configs, checked) if configs else []
    with tempfile.TemporaryDirectory() as sound:
        return rows + (count_losses(data_files(make_files(Path(sound))), files, read) if files else [])


def main() -> int:
    """Try all, print the rows as JSON, and return 1 where there are losses."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--configs", type=int, default=5000)
    parser.add_argument("--files", type=int, default=500)
    parsed = parser.parse_args()
    rows = run(parsed.configs, parsed.files)
    print(json.dumps({"rows": rows, "losses": sum(row["losses"] for row in rows)}))
    return 1 if any(row["losses"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
