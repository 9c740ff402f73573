"""Whole runs with the optimizers that ask most of the loop: they finish, and are evaluated as they are meant."""

import importlib

import pytest
from optimizer_cases import PERTURBED, SGD

from jaxlab.core import record
from jaxlab.core.config import spec
from jaxlab.run.evaluate import evaluate
from jaxlab.run.train import train

NODES = {
    "sam": spec("optax.contrib:sam", optimizer=SGD, adv_optimizer=PERTURBED),
    "opaque sam": spec("optax.contrib:sam", optimizer=SGD, adv_optimizer=PERTURBED, opaque_mode=True),
    "lbfgs": spec("optax:lbfgs", memory_size=3),
    "schedule free": spec(
        "jaxlab.optim.chain:make",
        transforms=(spec("optax:clip_by_global_norm", max_norm=1.0), spec("optax.contrib:schedule_free_sgd")),
    ),
    "several steps": spec("optax:MultiSteps", opt=spec("optax:adam", learning_rate=1e-3), every_k_schedule=2),
    "rules": spec(
        "jaxlab.optim.rules:make",
        optimizer=spec("optax:adam"),
        learning_rate=spec("jaxlab.optim.schedules:warmup_linear", peak=1e-2),
        freeze=(("Dense_0/.*", True), (".*", False)),
    ),
}

LIKE_OTHERS = ("sam", "schedule free", "rules")


@pytest.fixture
def tiny(monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath / "tests" / "train")
    return importlib.import_module("tiny")


@pytest.mark.slow
@pytest.mark.filterwarnings("error::jaxlab.train.compilation.RecompilationWarning")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.exhaustive if name in LIKE_OTHERS else ()) for name in NODES]
)
def test_a_run_finishes_and_its_checkpoint_evaluates_to_the_loss_that_it_reported(name, tiny, tmp_path):
    config = tiny.mlp()
    config.optimizer = NODES[name]
    config.train.update(steps=13, log_every=5, eval_every=5, checkpoint_every=6, steps_per_call=4)
    run = train(config.lock(), tmp_path / "run")
    rows = record.read_metrics(run.workdir)
    losses = [row["valid/loss"] for row in rows if "valid/loss" in row]
    assert losses[-1] < losses[0]
    result = evaluate(run.workdir, "valid", "latest")
    assert result["metrics"]["valid/loss"] == pytest.approx(losses[-1], rel=1e-5)
    assert result["parameters"] == ("optimizer" if name in {"sam", "opaque sam", "schedule free"} else "raw")
    log = (run.workdir / record.LOG).read_text()
    assert ("config.optimizer.freeze: 'Dense_0/.*' = True: 2 arrays, 1040 parameters" in log) == (name == "rules")
