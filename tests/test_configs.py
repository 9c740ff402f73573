"""Every config and every preset that ships is complete: it builds, and its steps have consistent shapes."""

import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlab.core import config as configs
from jaxlab.core import record
from jaxlab.run.assemble import assemble

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("configs/*.py"), *ROOT.glob("experiments/**/config*.py")])
PRESETS = [(file, preset) for file in FILES for preset in configs.presets(file)]
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
each_preset = pytest.mark.parametrize(("file", "preset"), PRESETS, ids=[f"{f.stem}:{p}" for f, p in PRESETS])
LINES = 100


def test_the_configs_were_found():
    assert {"digits_cnn.py", "fashion_mnist_cnn.py"} <= {file.name for file in FILES}
    assert ("get_config" in presets for presets in (configs.presets(file) for file in FILES))


@each_preset
@pytest.mark.usefixtures("stand_in_data")
def test_a_train_and_an_evaluation_step_have_consistent_shapes(file, preset):
    experiment = assemble(configs.load(f"{file}:{preset}"))
    state, statistics = experiment.abstract_step()
    before = jax.eval_shape(experiment.init)
    assert state == before  # the step keeps every shape, dtype and the structure
    rows = experiment.config.train.batch_size
    step = experiment.eval_step(None, generate=True)
    measured, outputs = jax.eval_shape(step, state, experiment.abstract_batch())
    assert {"loss", *experiment.metrics} <= set(measured)
    assert {*experiment.metrics, *experiment.tables} == set(experiment.config.metrics)
    assert set(measured) == set(statistics)
    assert all(value.shape[0] == rows for value in outputs.values())


@each_preset
@pytest.mark.usefixtures("stand_in_data")
def test_real_batches_of_every_split_have_the_shapes_that_the_steps_were_checked_with(file, preset):
    experiment = assemble(configs.load(f"{file}:{preset}"))._replace(buckets=None)  # they cut what is padding
    abstract = experiment.abstract_batch()
    for split in experiment.sources:
        batch = experiment.batches(split, training=split == "train")[0]
        assert {name: (x.shape, np.dtype(x.dtype)) for name, x in batch.items()} == {
            name: (x.shape, np.dtype(x.dtype)) for name, x in abstract.items()
        }


@each_preset
def test_a_config_comes_back_from_its_json_exactly(file, preset):
    config = configs.load(f"{file}:{preset}")
    again = configs.from_json(configs.to_json(config))
    assert configs.diff(config, again) == {}
    assert configs.flatten(again) == configs.flatten(config)
    assert configs.to_json(again) == configs.to_json(config)


@each_preset
def test_a_config_opens_a_run_that_the_same_config_finds_again(file, preset, tmp_path):
    config = configs.load(f"{file}:{preset}")
    record.open_run(tmp_path / "run", config, {})
    record.open_run(tmp_path / "run", configs.load(f"{file}:{preset}"), {})


@each_file
def test_a_config_file_is_short(file):
    assert len(file.read_text().splitlines()) <= LINES


@each_file
def test_a_config_file_s_docstring_has_the_command_that_trains_it(file):
    docstring = file.read_text().split('"""')[1]
    commands = re.findall(r"jaxlab train[^\n&]*", docstring)
    assert commands, f"{file.name}: no `jaxlab train` in the docstring"
    for command in commands:
        flags = dict(word.removeprefix("--").split("=", 1) for word in shlex.split(command)[2:])
        assert (ROOT / flags["config"].partition(":")[0]).resolve() == file
        assert flags["workdir"]
