"""Reconstruction is its formula in float64; the ELBO is below log p(x) and reaches it at the true posterior."""

import jax.numpy as jnp
import numpy as np
import pytest
from objective_helpers import check_laws, data_of, judge, masked
from scipy import stats

from jaxlab.core import config as configs
from jaxlab.core.errors import ConfigError
from jaxlab.objectives import reconstruct

B, T, F, D = 6, 3, 4, 2
random = np.random.default_rng(0)
FIELDS = {
    "features": random.random((B, T, F)).astype(np.float32), "noisy": random.random((B, T, F)).astype(np.float32),
    "there": random.integers(0, 2, (B, T, F)).astype(np.float32), "steps": random.integers(0, 2, (B, T)).astype(bool),
}  # fmt: skip
DATA = data_of(FIELDS)
OUTPUTS = {
    "reconstruction": random.normal(size=(B, T, F)).astype(np.float32),
    "mean": random.normal(size=(B, D)).astype(np.float32),
    "log_variance": random.normal(size=(B, D)).astype(np.float32),
}
INPUTS = {"inputs": ("features",)}


def cross_entropy(y, logits):
    p = 1 / (1 + np.exp(-logits))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


COSTS = {"gaussian": lambda y, found: (y - found) ** 2, "bernoulli": cross_entropy}


@pytest.mark.parametrize("likelihood", COSTS)
@pytest.mark.parametrize("target_mask", ["", "there", "steps"])
def test_the_loss_is_its_formula_and_the_score_an_examples_mean(likelihood, target_mask):
    batch = masked(FIELDS)
    objective = reconstruct.make(DATA, **INPUTS, target_mask=target_mask, likelihood=likelihood)
    loss = judge(objective, batch, OUTPUTS)
    there = np.broadcast_to(batch[target_mask].reshape(B, T, -1), (B, T, F)) if target_mask else np.ones((B, T, F))
    weight = there * batch["mask"][:, None, None]
    each = COSTS[likelihood](*(x.astype(np.float64) for x in (FIELDS["features"], OUTPUTS["reconstruction"])))
    assert float(loss.total) == pytest.approx((each * weight).sum(), rel=1e-5)
    assert float(loss.weight) == weight.sum()
    score_B = (each * weight).sum((1, 2)) / np.maximum(weight.sum((1, 2)), 1)
    np.testing.assert_allclose(loss.outputs["score"], score_B, rtol=1e-5)


@pytest.mark.parametrize("likelihood", COSTS)
def test_the_elbo_is_its_formula(likelihood):
    batch, sigma, beta = masked(FIELDS), 0.7, 0.4
    loss = judge(reconstruct.elbo(DATA, **INPUTS, likelihood=likelihood, sigma=sigma, beta=beta), batch, OUTPUTS)
    y, found, mean, log_variance = (x.astype(np.float64) for x in (FIELDS["features"], *OUTPUTS.values()))
    each = -stats.norm.logpdf(y, found, sigma) if likelihood == "gaussian" else cross_entropy(y, found)
    kl_B = -0.5 * (1 + log_variance - mean**2 - np.exp(log_variance)).sum(axis=1)
    loss_B = each.sum((1, 2)) + beta * kl_B
    assert float(loss.total) == pytest.approx((loss_B * batch["mask"]).sum(), rel=1e-5)
    assert float(loss.weight) == batch["mask"].sum()
    real = batch["mask"] > 0
    np.testing.assert_allclose(loss.outputs["score"][real], loss_B[real], rtol=1e-5)
    np.testing.assert_allclose(loss.outputs["kl"][real], kl_B[real], rtol=1e-5)


@pytest.mark.parametrize("factory", ["make", "elbo"])
@pytest.mark.parametrize("likelihood", COSTS)
def test_they_keep_the_laws(factory, likelihood):
    objective = getattr(reconstruct, factory)(DATA, **INPUTS, target_mask="there", likelihood=likelihood)
    check_laws(objective, FIELDS, OUTPUTS)


def test_the_target_may_be_another_field_than_what_the_model_sees():
    loss = judge(reconstruct.make(DATA, inputs=("noisy",), target="features"), masked(FIELDS), OUTPUTS)
    expected = judge(reconstruct.make(DATA, **INPUTS), masked(FIELDS), OUTPUTS)
    assert float(loss.total) == float(expected.total)


class Linear:
    """Probabilistic PCA (Tipping & Bishop 1999): x = W z + b + sigma noise, columns of W orthogonal.

    Then log p(x) is that of a normal distribution and the true posterior is one with independent numbers of the code.
    """

    def __init__(self):
        self.sigma = 0.6
        self.W = np.linalg.qr(random.normal(size=(F, D)))[0] * [2.0, 0.8]
        self.b = random.normal(size=F)
        self.x = random.normal(0, 2, (B, F))
        variance_D = self.sigma**2 / ((self.W**2).sum(axis=0) + self.sigma**2)
        self.mean = (self.x - self.b) @ self.W * variance_D / self.sigma**2
        self.log_variance = np.tile(np.log(variance_D), (B, 1))
        self.log_p = stats.multivariate_normal.logpdf(self.x, self.b, self.W @ self.W.T + self.sigma**2 * np.eye(F))

    def elbo(self, mean, log_variance):
        """Return the bound [B], its expectation exact: log p(x | z) is quadratic in z, so 2 D points give its mean."""
        fields = {"x": self.x.astype(np.float32)}
        objective = reconstruct.elbo(data_of(fields), inputs=("x",), sigma=self.sigma)
        found = []
        for point in np.concatenate([np.eye(D), -np.eye(D)]) * np.sqrt(D):
            code = mean + np.exp(log_variance / 2) * point
            outputs = {"reconstruction": code @ self.W.T + self.b, "mean": mean, "log_variance": log_variance}
            outputs = {name: jnp.asarray(value, jnp.float32) for name, value in outputs.items()}
            found.append(-np.asarray(judge(objective, masked(fields, ()), outputs).outputs["score"]))
        return np.mean(found, axis=0)


def test_the_elbo_is_log_p_at_the_true_posterior():
    linear = Linear()
    np.testing.assert_allclose(linear.elbo(linear.mean, linear.log_variance), linear.log_p, rtol=1e-5)


def test_the_elbo_is_below_log_p_everywhere_else_by_the_divergence_from_the_true_posterior():
    linear = Linear()
    for scale in (0.1, 1.0, 3.0):
        mean = linear.mean + scale * random.normal(size=(B, D))
        log_variance = linear.log_variance + scale * random.normal(size=(B, D))
        ratio = np.exp(log_variance - linear.log_variance)
        distance = (mean - linear.mean) ** 2 / np.exp(linear.log_variance)
        gap_B = 0.5 * (ratio - 1 - np.log(ratio) + distance).sum(axis=1)
        found_B = linear.elbo(mean, log_variance)
        assert (found_B < linear.log_p).all()
        np.testing.assert_allclose(linear.log_p - found_B, gap_B, rtol=1e-3)


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("make", {"inputs": ("feature",)}, "did you mean 'features'"),
        ("make", {"inputs": ()}, "inputs=.*the names of the fields"),
        ("make", {**INPUTS, "target_mask": "their"}, "did you mean 'there'"),
        ("make", {**INPUTS, "likelihood": "gausian"}, "likelihood='gausian': .*did you mean 'gaussian'"),
        ("elbo", {**INPUTS, "likelihood": "poisson"}, "likelihood='poisson'"),
        ("elbo", {**INPUTS, "sigma": 0.0}, "sigma=0.0: expected a number above 0"),
        ("elbo", {**INPUTS, "beta": -1.0}, "beta=-1.0: expected a number of 0 or more"),
        ("elbo", {**INPUTS, "target": "feature"}, "did you mean 'features'"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_the_config_path(factory, options, message):
    node = configs.spec(f"jaxlab.objectives.reconstruct:{factory}", **options)
    with pytest.raises(ConfigError, match=f"^config.objective: .*{message}"):
        configs.build(node, path="config.objective", data=DATA)


def test_a_reconstruction_of_another_shape_is_an_error_and_not_broadcast():
    with pytest.raises(ConfigError, match="the model's reconstruction has the shape"):
        judge(reconstruct.make(DATA, **INPUTS), masked(FIELDS), {"reconstruction": np.zeros((B, 1, F), np.float32)})
