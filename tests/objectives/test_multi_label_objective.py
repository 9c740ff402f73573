"""The loss of several labels is torch's formula, label by label."""

import numpy as np
import pytest
from objective_helpers import check_laws, data_of, judge, masked

from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError
from jaxlab.objectives import classify

B, C = 7, 3
random = np.random.default_rng(0)
FIELDS = {"image": np.zeros((B, 2), np.float32), "labels": random.integers(0, 2, (B, C)).astype(np.int32)}
OUTPUTS = {"logits": random.normal(0, 3, (B, C)).astype(np.float32)}
DATA = data_of(FIELDS)
WEIGHTS = (0.5, 1.0, 4.0)


@pytest.mark.parametrize("weights", [(), WEIGHTS])
def test_the_loss_is_the_mean_over_labels_of_the_weighted_cross_entropy(weights):
    batch = masked(FIELDS)
    loss = judge(classify.multi_label(DATA, positive_weights=weights), batch, OUTPUTS)
    p = 1 / (1 + np.exp(-OUTPUTS["logits"].astype(np.float64)))
    y = FIELDS["labels"]
    each = -(np.array(weights or (1, 1, 1)) * y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=1)
    assert float(loss.total) == pytest.approx((each * batch["mask"]).sum(), rel=1e-5)
    assert float(loss.weight) == batch["mask"].sum()
    assert np.array_equal(loss.outputs["prediction"], p > 0.5)


def test_it_is_torchs_loss():
    torch = pytest.importorskip("torch")
    loss = judge(classify.multi_label(DATA, positive_weights=WEIGHTS), masked(FIELDS, ()), OUTPUTS)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(OUTPUTS["logits"]), torch.tensor(FIELDS["labels"]).float(), pos_weight=torch.tensor(WEIGHTS)
    )
    assert float(loss.total / loss.weight) == pytest.approx(float(expected), rel=1e-5)


def test_it_keeps_the_laws():
    check_laws(classify.multi_label(DATA, positive_weights=WEIGHTS), FIELDS, OUTPUTS)


def test_sure_and_wrong_is_a_finite_loss_with_a_gradient():
    logits = np.where(FIELDS["labels"] > 0, -1e4, 1e4).astype(np.float32)
    assert float(judge(classify.multi_label(DATA), masked(FIELDS, ()), {"logits": logits}).total) == pytest.approx(
        1e4 * B
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "lables"}, "did you mean 'labels'"),
        ({"inputs": ("imgae",)}, "did you mean 'image'"),
        ({"target": "scalar"}, "expected one number a label"),
        ({"positive_weights": (1.0, 2.0)}, "positive_weights has 2 values; the data has 3 labels"),
        ({"positive_weights": (1.0, 2.0, -1.0)}, "positive_weights=-1.0: expected a number of 0 or more"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_the_config_path(options, message):
    node = configs.spec("jaxlab.objectives.classify:multi_label", **options)
    with pytest.raises(ConfigError, match=f"^config.objective: .*{message}"):
        configs.build(node, path="config.objective", data=data_of({**FIELDS, "scalar": np.zeros(B)}))


def test_logits_of_another_number_of_labels_are_an_error():
    with pytest.raises(ConfigError, match="the model's logits"):
        judge(classify.multi_label(DATA), masked(FIELDS), {"logits": np.zeros((B, C + 1), np.float32)})
