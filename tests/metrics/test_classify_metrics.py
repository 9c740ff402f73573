"""The additive metrics are scikit-learn's, over the real rows, for any split of the examples into batches."""

import itertools

import jax
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from jaxlab.metrics import classify

N, C = 30, 5
METRICS = {"accuracy": classify.accuracy(), "cross_entropy": classify.cross_entropy()}
each_metric = pytest.mark.parametrize("name", METRICS)


def make_data(seed=0, masked=True):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (N, C)).astype(np.float32)
    target = generator.integers(0, C, N).astype(np.int32)
    mask = (generator.uniform(size=N) < (0.7 if masked else 2)).astype(np.float32)
    prediction = logits.argmax(-1).astype(np.int32)
    return {"logits": logits, "target": target, "prediction": prediction}, {"mask": mask}


def expected_of(name, outputs, mask):
    real = mask > 0
    if name == "accuracy":
        return accuracy_score(outputs["target"][real], outputs["prediction"][real])
    probabilities = np.asarray(jax.nn.softmax(outputs["logits"]))[real]
    return log_loss(outputs["target"][real], probabilities, labels=np.arange(C))


@each_metric
@pytest.mark.parametrize("masked", [True, False])
def test_a_metric_is_scikit_learns_over_the_real_rows(name, masked):
    outputs, batch = make_data(masked=masked)
    value = METRICS[name].compute(jax.jit(METRICS[name].update)(outputs, batch))
    assert value == pytest.approx(expected_of(name, outputs, batch["mask"]), rel=1e-5)


@each_metric
@pytest.mark.parametrize("cuts", [(), (15,), (1, 2, 29), (10, 10, 20)])
def test_statistics_of_batches_add_up_to_those_of_all_examples(name, cuts):
    outputs, batch = make_data()
    bounds = [0, *cuts, N]
    parts = []
    for start, stop in itertools.pairwise(bounds):
        rows = jax.tree.map(lambda value, cut=slice(start, stop): value[cut], (outputs, batch))
        parts.append(jax.device_get(METRICS[name].update(*rows)))
    merged = jax.tree.map(lambda *values: sum(values), *parts)
    assert METRICS[name].compute(merged) == pytest.approx(expected_of(name, outputs, batch["mask"]), rel=1e-5)


@each_metric
def test_what_a_padded_row_holds_does_not_show(name):
    outputs, batch = make_data()
    clean = METRICS[name].update(outputs, batch)
    outputs["logits"][batch["mask"] == 0] = np.nan
    outputs["prediction"][batch["mask"] == 0] = -1
    jax.tree.map(np.testing.assert_array_equal, METRICS[name].update(outputs, batch), clean)


@each_metric
def test_a_metric_of_no_example_is_not_a_number(name):
    outputs, batch = make_data()
    assert np.isnan(METRICS[name].compute(METRICS[name].update(outputs, {"mask": 0 * batch["mask"]})))
