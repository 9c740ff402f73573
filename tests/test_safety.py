"""A run directory, a data file or an archive from a stranger is data: it runs nothing, leads nowhere, fills no memory.

Pickles that would leave a mark, factories that would, links, sizes that are declared and not there.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import io
import json
import os
import re
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contract_discovery import FOUND, public_functions
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

import jaxlab
from jaxlab import cli
from jaxlab.core import limits, paths, record, trust
from jaxlab.core.config import from_json, spec
from jaxlab.core.errors import ConfigError, DataError, UsageError
from jaxlab.core.factory import IMPORTED, REFUSED
from jaxlab.data import cache, image_folder, memmap_source, split_files, table_source, text_source, tfds_source
from jaxlab.data.preparation import packages
from jaxlab.data.preparation.fetch import FetchError
from jaxlab.data.tokenize import load_tokenizer
from jaxlab.models.weights import files as weights
from jaxlab.run.base import base_config
from jaxlab.run.evaluate import EVALUATION
from jaxlab.run.store import read_arrays, write_store

ROOT = Path(__file__).parents[1]

# --- no pickle anywhere -------------------------------------------------------------------------------------------

UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
CALLS = {"eval", "exec", "__import__", "read_pickle", "to_pickle", "yaml.load", "torch.load"}
CHECKED = ("np.load", "numpy.load")
ALLOWED = {
    "scripts/golden_values.py": {"eval"},  # PyTorch's model.eval(), which sets a mode
}


def dangers(tree: ast.AST) -> set[str]:
    """Return what a module imports or calls that makes objects, or code, of bytes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLERS}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            found.add(node.module or "")
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in CALLS or name.split(".")[-1] in CALLS:
                found.add(name.split(".")[-1])
            if name in CHECKED and keywords.get("allow_pickle") != "False":
                found.add(f"{name} without allow_pickle=False")
            if keywords.get("allow_pickle", "False") != "False":
                found.add("allow_pickle")
    return found


def test_nothing_makes_objects_of_pickles_or_code_of_text():
    files = [
        file for folder in ("jaxlab", "scripts", "configs", "experiments") for file in (ROOT / folder).rglob("*.py")
    ]
    found = {str(file.relative_to(ROOT)): dangers(ast.parse(file.read_text())) for file in files}
    found = {name: what - ALLOWED.get(name, set()) for name, what in found.items()}
    assert {name: what for name, what in found.items() if what} == {}
    assert len(files) > 100


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from joblib import load", "import a, cloudpickle.x", "eval('1')", "np.load(f)",
        "yaml.load(f)", "np.load(f, allow_pickle=True)", "pd.read_pickle(f)", "builtins.exec(x)",
        "load(allow_pickle=x)",
    ],
)  # fmt: skip
def test_the_search_for_pickles_finds_them(code):
    assert dangers(ast.parse(code))


MARK = "pickle_was_run"


class Planted:
    def __reduce__(self):
        return (Path.touch, (Path(os.environ[MARK]),))


def pickled() -> list[bytes]:
    """Return pickles, bare and in files of NumPy, that leave a mark when they are loaded."""
    import pickle

    array, several = io.BytesIO(), io.BytesIO()
    np.save(array, np.array([Planted()], object), allow_pickle=True)
    np.savez(several, x=np.array([Planted()], object))
    return [pickle.dumps(Planted(), protocol) for protocol in (0, 2, 4)] + [array.getvalue(), several.getvalue()]


def readers(folder: Path) -> dict[str, object]:
    """Return what jaxlab reads each kind of file with."""
    run = folder / "run"
    return {
        "a.csv": lambda file: table_source.make(str(file)),
        "a.jsonl.gz": lambda file: table_source.make(str(file)),
        "a.parquet": lambda file: table_source.make(str(file)),
        "a.txt": lambda file: text_source.lines(str(file)),
        "rows/a.npy": lambda file: memmap_source.make(str(file.parent)),
        "kept/a.npy": lambda file: cache._read(file.parent),
        "pictures/a/a.png": lambda file: image_folder.make(str(file.parents[1]), size=(2, 2)),
        "tokenizer.json": load_tokenizer,
        "split.json": lambda file: split_files.load(str(file), "x", 1),
        "model.safetensors": lambda file: weights.read(str(file)),
        "run/config.json": lambda file: record.read_config(file.parent),
        "run/summary.json": record.read_json,
        "run/transforms.json": lambda file: record.read_learnt(run),
        "run/metrics.jsonl": lambda file: record.read_metrics(run),
        "run/predictions/test-1.parquet": lambda file: read_arrays(run, "test", 1),
    }


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(readers(Path()))), data=st.data())
def test_a_pickle_in_any_file_is_never_run(name, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    os.environ[MARK] = str(folder / MARK)
    content = data.draw(st.sampled_from(pickled()))
    content = data.draw(st.sampled_from([b"", b"\n", b"{", b'{"step": 1}\n', b"\x93NUMPY", b"PAR1"])) + content
    content += data.draw(st.sampled_from([b"", b"\n", b"}", b"PAR1"]))
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (folder / "kept").mkdir(exist_ok=True)
    (folder / "kept" / cache.MANIFEST).write_text('{"checksums": {"a": "0"}, "arrays": ["a"], "facts": {}}')
    with contextlib.suppress(UsageError):
        readers(folder)[name](file)
    assert not (folder / MARK).exists()


def test_the_planted_pickles_would_leave_their_mark(tmp_path):
    import pickle

    os.environ[MARK] = str(tmp_path / MARK)
    pickle.loads(pickled()[0])
    assert (tmp_path / MARK).exists()


# --- a stranger's run imports nothing -----------------------------------------------------------------------------


@pytest.fixture
def nothing_is_allowed(monkeypatch):
    """Forget what this process has imported and allowed before."""
    monkeypatch.delenv(trust.VARIABLE, raising=False)
    before = set(IMPORTED)
    IMPORTED.clear()
    yield
    REFUSED.clear()
    IMPORTED.update(before)


def digits() -> ConfigDict:
    config = base_config()
    for split in ("train", "valid", "test"):
        config.data[split] = spec("jaxlab.data.digits:make", split=split)
    config.model = spec("jaxlab.models.mlp:make", hidden=(4,))
    config.objective = spec("jaxlab.objectives.classify:make")
    config.optimizer = spec("optax:sgd", learning_rate=0.1)
    return config


@pytest.fixture
def stranger(tmp_path, monkeypatch, nothing_is_allowed):
    """Return a run directory whose config names code that leaves a mark, and the mark."""
    code, mark = tmp_path / "code", tmp_path / "mark"
    code.mkdir()
    (code / "stranger_code.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nfrom jaxlab.metrics.classify import accuracy as make\n"
    )
    config = digits()
    config.metrics.mine = ConfigDict({"factory": "stranger_code:make"})
    for name in ("run", "other"):
        record.open_run(tmp_path / name, config, {"config": str(code / "config.py"), "overrides": {}})
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "run", mark
    sys.modules.pop("stranger_code", None)


COMMANDS = {
    "evaluate": lambda run: ["evaluate", f"--workdir={run}"],
    "check": lambda run: ["check", f"--config={run}/config.json"],
    "overridden": lambda run: ["check", f"--config={run}/config.json", "--config.metrics.mine.top=none"],
    "train": lambda run: ["train", f"--config={run}/config.json", f"--workdir={run.parent}/new"],
    "baseline": lambda run: ["baseline", f"--config={run}/config.json"],
    "sanity": lambda run: ["sanity", f"--config={run}/config.json"],
    "audit": lambda run: ["audit", f"--config={run}/config.json", f"--output={run.parent}/audit"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_imports_what_a_strangers_run_names_and_each_says_the_flag(stranger, capsys, name):
    run, mark = stranger
    assert cli.main(COMMANDS[name](run)) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "config.metrics.mine.factory='stranger_code:make'" in said
    assert "--allow=stranger_code" in said
    assert not mark.exists()


EVALUATED = {"split": "test", "reads": 1, "predictions": "predictions/test-1.parquet", "tuned": {}}


def test_comparing_strangers_runs_imports_nothing(stranger):
    run, mark = stranger
    for name in ("run", "other"):
        (run.parent / name / record.METRICS).write_text('{"step": 1, "data/ids": 3}\n')
        record.write_json(run.parent / name / EVALUATION, {"test-1": EVALUATED})
        write_store(run.parent / name, "test", 1, {"id": np.arange(3), "target": np.arange(3)})
    assert cli.main(["compare", str(run), str(run.parent / "other"), "--split=test"]) in (0, 2)
    assert not mark.exists()


def test_reading_a_strangers_run_shows_its_config_and_imports_nothing(stranger):
    run, mark = stranger
    found = jaxlab.Run(run)
    assert found.config.metrics.mine.factory == "stranger_code:make"
    assert found.summary == {}
    with pytest.raises(UsageError, match="--allow=stranger_code"):
        found.evaluate()
    with pytest.raises(UsageError, match=r"code/stranger_code\.py"):
        record.trusted_config(run)
    with pytest.raises(UsageError, match="--allow=stranger_code"):
        jaxlab.load_config(run / "config.json")
    assert not mark.exists()


def test_a_config_that_was_read_builds_nothing_untrusted_by_any_way(stranger):
    run, mark = stranger
    config = jaxlab.Run(run).config
    for go_on in (
        lambda: jaxlab.build(config.metrics), lambda: jaxlab.train(config, run.parent / "new"),
        lambda: jaxlab.check(config), lambda: jaxlab.override(config, {"metrics.mine.factory": "optax:sgd"}),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="--allow=stranger_code"):
            go_on()
    assert not mark.exists()
    trust.allow("stranger_code")
    with pytest.raises(ConfigError, match="No module named"):
        jaxlab.build(config.metrics)


def test_a_package_that_the_user_allows_by_name_is_found_where_the_config_stood(stranger, monkeypatch):
    run, mark = stranger
    monkeypatch.setenv(trust.VARIABLE, "another, stranger_code")
    config = record.trusted_config(run)
    assert not mark.exists()  # looking is not importing
    assert jaxlab.build(config.metrics, data=None)["mine"] is not None
    assert mark.exists()


def test_code_that_lies_within_the_run_is_not_found_even_where_its_name_is_allowed(stranger, monkeypatch):
    run, _ = stranger
    (run.parent / "code" / "stranger_code.py").rename(run / "stranger_code.py")
    record.write_json(run / record.OVERRIDES, {"config": str(run / "config.py")})
    monkeypatch.setenv(trust.VARIABLE, "stranger_code")
    config = record.trusted_config(run)
    with pytest.raises(ConfigError, match="No module named 'stranger_code'"):
        jaxlab.build(config.metrics, data=None)


def test_what_this_process_has_imported_for_its_own_config_needs_no_flag(stranger, monkeypatch):
    run, mark = stranger
    monkeypatch.syspath_prepend(run.parent / "code")
    spec("stranger_code:make")
    assert mark.exists()
    assert record.trusted_config(run).metrics.mine.factory == "stranger_code:make"


def test_a_config_of_ones_own_says_what_to_allow_where_it_is_handed_on(nothing_is_allowed):
    config = digits()
    assert trust.packages_of(config) == ()
    config.hooks.mine = ConfigDict({"factory": "mine.hooks:make", "inner": {"factory": "jax.tree:map"}})
    assert trust.packages_of(config) == ("mine", "jax")


def test_allowing_is_by_name_and_is_inherited(nothing_is_allowed):
    trust.allow("mine", "yours")
    trust.allow("theirs", "mine")
    assert os.environ[trust.VARIABLE] == "mine,yours,theirs"
    for wrong in ("", "a,b", "../x", "a b"):
        with pytest.raises(UsageError, match="expected names of packages"):
            trust.allow(wrong)


STEPPING_STONES = [
    "os:system", "builtins:exec", "subprocess:Popen", "pickle:loads", "numpy:load", "ml_collections:ConfigDict",
    "jaxlab:build", "jaxlab.core.config:build", "jaxlab.core.config:load", "jaxlab.core.factory:import_factory",
    "jaxlab.core.record:write_atomically", "jaxlab.core.config:importlib.import_module", "jaxlab.cli:main",
    "jaxlab.run.train:train", "jaxlab.data.splits:save", "jaxlab.data.cache:cached", "jaxlab.data.cache:os.remove",
    "jaxlab.data.preparation.fetch:download", "jaxlab.data.preparation.prepare:prepare",
    "jaxlab.data.builders.kjv:Builder", "jaxlab.models.weights.files:write", "jaxlab.models.weights.gpt2:write",
    "jaxlab.data.tokenize:train_tokenizer", "jaxlab.data.image_folder:ThreadPoolExecutor", "jaxlab.data.arrays:Any",
    "jax:numpy.load", "jax.numpy:load", "jax.numpy:save", "jax.tree:map", "jax:jit", "jax.profiler:start_server",
    "jax.experimental.serialize_executable:deserialize_and_load", "jax._src.config:os.system", "jax.nn:os.system",
    "flax.io:rmtree", "flax.serialization:from_bytes", "flax.linen.module:os.system", "flax.linen:jax.numpy.load",
    "flax.training.checkpoints:restore_checkpoint", "optax:_src.base.Callable", "optax._src.base:Callable",
    "optax.transforms:functools.partial", "optax.contrib:_x",
]  # fmt: skip


@pytest.mark.parametrize("name", STEPPING_STONES)
def test_trusted_packages_are_no_stepping_stone_to_the_rest(nothing_is_allowed, name):
    config = from_json(json.dumps({"a": [{"b": [[{"factory": name}]]}]}))
    with pytest.raises((UsageError, ConfigError), match="factory"):
        trust.check_imports(config, "config.json")


def test_names_in_other_fields_that_a_source_would_import_are_looked_at_too(nothing_is_allowed):
    config = ConfigDict({"data": spec("jaxlab.data.tfds_source:make", name="os:system")})
    with pytest.raises(UsageError, match=r"config\.data\.name='os:system'"):
        trust.check_imports(config, "config.json")
    trust.check_imports(ConfigDict({"a": "train[:90%]", "b": "C:\\x", "c": ("lr: 3",), "d": "12:30"}), "config.json")


def test_every_factory_that_jaxlab_ships_may_be_named_and_no_function_that_writes(nothing_is_allowed):
    for path in {case.path for case in FOUND}:
        trust.check_imports(ConfigDict({"factory": path}), "config.json")
    for path in ("optax:adamw", "optax:nadam", "optax.contrib:muon", "jax.nn.initializers:normal", "flax.linen:Dense"):
        trust.check_imports(ConfigDict({"factory": path}), "config.json")
    known = {case.path for case in FOUND} | {"jaxlab.optim.chain:uniform"}  # a schedule that takes a schedule
    known |= {path for path, found in public_functions() if found.__annotations__.get("return") == "Generate"}
    named = set()
    for path, _ in public_functions():
        try:
            trust.check_imports(ConfigDict({"factory": path}), "config.json")
        except UsageError:
            continue
        named.add(path)
    assert named - known == set()


@pytest.mark.parametrize("factory", [3, None, "", "x", "a:b:c", "os.system", ["os:system"], {"factory": "os:system"}])
def test_a_factory_that_is_no_name_is_an_error_that_names_its_place(nothing_is_allowed, factory):
    with pytest.raises((ConfigError, UsageError), match=r"config\.model\.factory"):
        trust.check_imports(ConfigDict({"model": {"factory": factory}}), "config.json")


def test_a_prepared_data_set_whose_features_are_classes_of_others_is_not_opened(tmp_path):
    folder = tmp_path / "evil" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"name": "evil", "version": "1.0.0", "fileFormat": "array_record"}')
    inner = {"pythonClassName": "antigravity.Feature"}
    features = {"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict"}
    (folder / "features.json").write_text(json.dumps({**features, "featuresDict": {"features": {"x": inner}}}))
    with pytest.raises(DataError, match=r"antigravity\.Feature"):
        tfds_source.make("evil", data_dir=str(tmp_path))
    assert "antigravity" not in sys.modules


# --- paths do not leave -------------------------------------------------------------------------------------------

parts = st.sampled_from(["..", ".", "a", "b", "", "/", "link", "out", "\\", "~", "é", "c/../.."])


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.one_of(st.lists(parts, max_size=6).map("/".join), st.text(max_size=20)))
@example(path="/etc/passwd")
@example(path="out/passwd")
@example(path="\0")
def test_a_path_within_a_run_never_leads_out_of_it(path, tmp_path):
    folder = tmp_path / "run"
    if not folder.exists():
        (folder / "a").mkdir(parents=True)
        (folder / "link").symlink_to("a")
        (folder / "out").symlink_to("/etc")
    leads_out = "\0" in path or not (folder / path).resolve().is_relative_to(folder.resolve())
    if leads_out or path.startswith("/"):
        with pytest.raises(DataError, match=re.escape(str(folder))):
            paths.inside(folder, path)
    else:
        assert paths.inside(folder, path) == folder / path


def test_a_run_is_read_through_a_link_but_no_link_within_it_leads_out(tmp_path):
    record.open_run(tmp_path / "run", digits(), {})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "latest").symlink_to("checkpoints")
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    assert jaxlab.Run(tmp_path / "linked").config.model.hidden == (4,)
    (tmp_path / "run" / "checkpoints" / "7").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leads out of it"):
        jaxlab.Run(tmp_path / "run")


def test_files_of_a_run_that_are_links_to_elsewhere_are_neither_read_nor_written(tmp_path):
    run, secret = tmp_path / "run", tmp_path / "secret"
    run.mkdir()
    secret.mkdir()
    (secret / "a.json").write_text('{"secret": 1}')
    (secret / "a.jsonl").write_text('{"step": 1}\n')
    (run / record.SUMMARY).symlink_to(secret / "a.json")
    (run / record.METRICS).symlink_to(secret / "a.jsonl")
    (run / record.PREDICTIONS).symlink_to(secret)
    for read in (lambda: record.read_json(run / record.SUMMARY), lambda: record.read_metrics(run)):
        with pytest.raises(DataError, match="leads out of it"):
            read()
    with pytest.raises(DataError, match="leads out of it"):
        write_store(run, "test", 1, {"id": np.arange(3)})
    assert sorted(path.name for path in secret.iterdir()) == ["a.json", "a.jsonl"]


def test_weights_of_an_index_are_looked_for_beside_it_only(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../secret.safetensors"}}')
    with pytest.raises(DataError, match="leads out of it"):
        weights.read(str(tmp_path))


# --- sizes are looked at first ------------------------------------------------------------------------------------


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":[', '{"a":[1],"b":'])
@pytest.mark.parametrize("depth", [101, 100_000])
def test_json_without_end_is_an_error_that_names_the_file(tmp_path, opening, depth):
    closing = {"[": "]", "{": "}"}
    text = opening * depth + "1" + "".join(closing[c] for c in reversed(opening) if c in closing) * depth
    run = tmp_path / "run"
    run.mkdir()
    for name in (record.CONFIG, record.SUMMARY, record.LEARNT, record.METRICS):
        (run / name).write_text(text + "\n")
    for read in (
        lambda: record.read_config(run), lambda: record.read_json(run / record.SUMMARY),
        lambda: record.read_learnt(run), lambda: record.read_metrics(run),
        lambda: jaxlab.load_config(run / record.CONFIG), lambda: load_tokenizer(run / record.SUMMARY),
    ):  # fmt: skip
        with pytest.raises((DataError, ConfigError), match=r"(config|summary|transforms|metrics)\.json.*(levels|JSON)"):
            read()


def test_files_that_are_too_large_are_not_read(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name, size in ((record.CONFIG, limits.JSON_BYTES), (record.SUMMARY, limits.LIST_BYTES)):
        with (run / name).open("wb") as file:
            file.truncate(size + 1)  # holes take no disk
    with pytest.raises(DataError, match="at most"):
        record.read_config(run)
    with pytest.raises(DataError, match="at most"):
        record.read_json(run / record.SUMMARY)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(limits.memory_bytes() + 1)
    with pytest.raises(DataError, match="at most"):
        weights.read(str(tmp_path))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(DataError, match="Not a regular file"):
        table_source.make(str(tmp_path / "a.csv"))
    os.mkfifo(tmp_path / record.SUMMARY)
    assert record.read_json(tmp_path / record.SUMMARY) == {}


def test_gzip_is_unpacked_only_up_to_the_limit():
    bomb = gzip.compress(bytes(10**7))
    assert len(limits.gunzip(bomb, "a.gz", 10**7)) == 10**7
    with pytest.raises(DataError, match=r"a\.gz: unpacks to more than 9,999,999 bytes"):
        limits.gunzip(bomb, "a.gz", 10**7 - 1)


def test_a_parquet_file_is_measured_by_its_footer(tmp_path):
    pq.write_table(pa.table({"x": np.zeros(10**6, np.int64)}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 10**5
    with pq.ParquetFile(tmp_path / "a.parquet") as file, pytest.raises(DataError, match=r"8,000,000 bytes; at most 10"):
        limits.check_parquet(file, "a.parquet", 10)
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        limits.check_parquet(file, "a.parquet", 8 * 10**6)


@pytest.mark.parametrize("header", [2**63, 10**8 + 1, 10**6, 0])
def test_a_safetensors_header_that_lies_is_an_error(tmp_path, header):
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", header) + b"{}" * 20)
    with pytest.raises(DataError, match=r"model\.safetensors: is damaged"):
        weights.read(str(tmp_path))


def test_tensors_that_claim_bytes_of_others_or_of_nobody_are_an_error(tmp_path):
    for offsets, shape in (([0, 2**40], [2**38]), ([-4, 0], [1]), ([0, 4], [2**62, 4]), ([0, 4], [2])):
        header = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
        with pytest.raises(DataError, match="is damaged"):
            weights.read(str(tmp_path))


def test_members_of_archives_that_declare_too_much_are_not_unpacked(tmp_path):
    zipped = tmp_path / "a.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.txt", bytes(1000))
    content = bytearray(zipped.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", packages.MOST_BYTES + 1)
    zipped.write_bytes(content)
    tarred = tmp_path / "a.tar"
    with tarfile.open(tarred, "w") as tar:
        member = tarfile.TarInfo("data.txt")
        member.size = packages.MOST_BYTES + 1
        tar.addfile(member)
    for path in (zipped, tarred):
        with pytest.raises(FetchError, match="at most"):
            packages.read_archive(path, r"data\.txt")


# --- the files of a run -------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.one_of(st.binary(max_size=60), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
).map(lambda value: json.dumps(value).encode() + b"\n")))  # fmt: skip
def test_whatever_stands_in_a_runs_files_is_read_or_is_an_error_for_the_user(content, tmp_path):
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    for name in (record.CONFIG, record.SUMMARY, record.LEARNT, record.METRICS, record.OVERRIDES):
        (run / name).write_bytes(content)
    for read in (record.read_config, record.trusted_config, record.read_learnt, record.read_metrics):
        said = ""
        try:
            read(run)
        except UsageError as error:
            said = str(error)
        assert "\n" not in said
        assert not said or str(run) in said or "config" in said


def test_a_prediction_store_of_another_make_is_an_error(tmp_path):
    (tmp_path / record.PREDICTIONS).mkdir()
    path = tmp_path / record.PREDICTIONS / "test-1.parquet"
    pd.DataFrame({"x": [1]}).to_parquet(path)
    with pytest.raises(DataError, match=r"test-1\.parquet"):
        read_arrays(tmp_path, "test", 1)
    write_store(tmp_path, "test", 1, {"id": np.arange(4), "logits": np.ones((4, 2), np.float32)})
    assert read_arrays(tmp_path, "test", 1)["logits"].shape == (4, 2)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"test-1\.parquet"):
            read_arrays(tmp_path, "test", 1)
