"""Every example of docs/own_model.md runs as it stands, and the model that it makes trains and evaluates."""

import importlib
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlab
from jaxlab.run.assemble import assemble
from jaxlab.train.apply import Bound

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/own_model.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
BLOCKS = {title: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for title, text in SECTIONS.items()}
each_kind = pytest.mark.parametrize("kind", ["linen", "nnx"])


@pytest.fixture
def example(kind, tmp_path, monkeypatch):
    """Return the section's example as a module that a spec can name."""
    (block,) = BLOCKS[{"linen": "Linen", "nnx": "NNX"}[kind]]
    name = f"own_{kind}_model"
    (tmp_path / f"{name}.py").write_text(block)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(name)
    del sys.modules[name]


def config_of(example):
    config = jaxlab.load_config(ROOT / "tests/train/tiny.py:mlp").copy_and_resolve_references().unlock()
    config.model = example.model
    config.train.steps = 6
    config.train.eval_every = config.train.checkpoint_every = 3
    return config


def test_the_page_has_a_section_a_kind_and_the_linen_example_has_fewer_than_twenty_lines():
    assert set(BLOCKS) == {"Linen", "NNX"}
    assert {title.lower() for title in SECTIONS} == set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    (linen,) = BLOCKS["Linen"]
    assert len([line for line in linen.splitlines() if line.strip()]) < 20


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("linen", "float32"), ("nnx", "float32"), pytest.param("nnx", "bfloat16", marks=pytest.mark.slow)],
)
def test_the_model_trains_and_evaluates(example, precision, tmp_path):
    config = config_of(example)
    config.train.precision = precision
    run = jaxlab.train(config, str(tmp_path / "run"))
    found = run.evaluate("valid")["metrics"]
    assert found["valid/cross_entropy"] == pytest.approx(run.history["valid/cross_entropy"].dropna().iloc[-1])
    assert found["valid/cross_entropy"] < 2.6  # log 10 is 2.3: six steps change little


def applied(example):
    """Return the function from a key, None for evaluation, to logits and new state."""
    experiment = assemble(config_of(example))
    state, batch = experiment.init(), experiment.batches("train")[0]
    model = experiment.make_model(None)

    @jax.jit
    def apply(key, image=batch["image"]):
        return Bound(model, state.params, state.model_state, key, None, train=key is not None)(image)

    return apply, state, batch


@each_kind
def test_dropout_differs_from_step_to_step_and_is_off_in_evaluation(example):
    apply, *_ = applied(example)
    first, again, other = (apply(jax.random.key(seed))[0]["logits"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(apply(None)[0]["logits"], apply(None)[0]["logits"])


@pytest.mark.parametrize("kind", ["nnx"])
def test_running_statistics_of_nnx_are_state_that_training_moves_and_evaluation_uses(example):
    apply, state, batch = applied(example)
    before = state.model_state["batch_stats"]["net"]["norm"]
    (_, moved), (found, still) = apply(jax.random.key(0)), apply(None)
    assert jax.tree.structure(moved) == jax.tree.structure(state.model_state)
    assert not np.allclose(moved["batch_stats"]["net"]["norm"]["mean"], before["mean"])
    assert still == {}
    one = apply(None, jnp.asarray(batch["image"][:1]))[0]["logits"]
    np.testing.assert_allclose(one, found["logits"][:1], atol=1e-5)  # of that row alone
