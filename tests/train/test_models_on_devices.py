"""Every model trains a step on 8 devices, under jit and pmap alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
from train_helpers import ROOT, finish, start

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(900)]  # it compiles every model twice for 8 devices


@pytest.fixture(scope="module")
def trained():
    code, output, errors = finish(start(str(ROOT / "tests/train/models_program.py"), devices=8), limit=850)
    assert code == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["devices"] == 8
    return result["models"]


def test_every_model_that_ships_is_there(trained):
    assert {"jaxlab.models.mlp:make", "jaxlab.models.cnn:make", "jaxlab.models.resnet:make"} <= {
        name.split()[0] for name in trained
    }


def test_a_step_under_jit_leaves_finite_parameters_and_moves_them(trained):
    bad = {name: model["not finite"] for name, model in trained.items() if model["not finite"]}
    assert not bad
    assert all(np.isfinite(model["loss"]) for model in trained.values())
    still = [name for name, model in trained.items() if len(model["unmoved"]) == model["parameters"]]
    assert not still


def test_under_jit_nothing_travels_but_gradients_once_and_sums(trained):
    for name, model in trained.items():
        assert set(model["travels"]) == {"all-reduce"}, name
        # beside each gradient once: sums of batch normalisation, a table's second gradient where it is the head too
        assert model["travels"]["all-reduce"] < 1.2 * model["bytes"] + 400, name


def test_a_step_under_pmap_is_that_of_jit(trained):
    far = {name: model["distance"] for name, model in trained.items() if not model["distance"] < 1e-5}
    assert not far
    for model in trained.values():
        assert model["pmap loss"] == pytest.approx(model["loss"], rel=1e-5)
