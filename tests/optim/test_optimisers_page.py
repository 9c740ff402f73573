"""The configs on the page about optimisers work as they stand."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlab.core.config import spec
from jaxlab.core.tree import named_leaves
from jaxlab.run.assemble import assemble

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/optimisers.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_its_configs():
    assert len(BLOCKS) >= 8
    assert all("config.optimizer = " in block for block in BLOCKS)


def test_every_schedule_is_in_the_page_s_table():
    source = (ROOT / "jaxlab/optim/schedules.py").read_text()
    public = set(re.findall(r"^def ([a-z]\w+)", source, re.MULTILINE))
    assert public == set(re.findall(r"^\| `(\w+)` \| [^|]*\|$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("block", BLOCKS, ids=[re.findall(r'"([\w.]+:\w+)"', block)[-1] for block in BLOCKS])
def test_a_config_of_the_page_trains_a_step_and_is_evaluated(block, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests" / "train")
    tiny = __import__("tiny")
    config = tiny.mlp()
    exec(compile(block, "docs/optimisers.md", "exec"), {"config": config, "spec": spec})
    experiment = assemble(config.lock())
    state = jax.jit(experiment.init)()
    after, _ = jax.jit(experiment.train_step(None))(state, experiment.batches("train", training=True)[0])
    assert all(np.isfinite(leaf).all() for leaf in named_leaves(after.params).values())
    jax.eval_shape(experiment.eval_step(None), after, experiment.abstract_batch())
