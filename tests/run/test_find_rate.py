"""The rate that a rising one recommends trains, and what cannot be varied is told."""

import json

import numpy as np
import pytest

import jaxlab
from jaxlab.cli import main
from jaxlab.core.errors import ConfigError, UsageError
from jaxlab.run.find_rate import recommended, smoothed

CONFIG = "configs/digits_cnn.py:mlp"


def test_the_steepest_place_of_a_curve_of_known_form_is_found():
    rates_T = np.geomspace(1e-6, 1, 400)
    x_T = np.log10(rates_T)
    losses_T = 2 - 1.5 / (1 + np.exp(-6 * (x_T + 3))) + np.where(x_T > -1, np.exp(8 * (x_T + 1)) - 1, 0)
    steep, cautious = recommended(rates_T, losses_T)
    assert -3.2 < np.log10(steep) < -2.5  # at -3, and the average lags
    assert -2.6 < np.log10(cautious) < -1.6
    with pytest.raises(UsageError, match="never falls"):
        recommended(rates_T, np.linspace(1, 2, 400))


def test_the_average_has_no_bias_and_keeps_a_constant():
    assert smoothed(np.full(9, 3.0)) == pytest.approx(np.full(9, 3.0))
    assert smoothed(np.array([5.0, 1.0]))[0] == 5.0


@pytest.mark.slow
def test_the_recommended_rate_learns_faster_than_one_far_below_and_above(tmp_path, capsys):
    assert main(["find-rate", f"--config={CONFIG}", "--steps=100", "--repeats=2", "--high=10"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 1e-5 < found["recommended"] < 1
    losses = []
    for factor in (1e-3, 1.0, 1e3):
        config = jaxlab.override(jaxlab.load_config(CONFIG), {
            "optimizer.learning_rate.peak": found["recommended"] * factor, "train.steps": 60, "train.log_every": 60,
            "train.eval_every": 60, "train.non_finite": "skip", "train.non_finite_limit": 100,
        })  # fmt: skip
        run = jaxlab.train(config, tmp_path / str(factor))
        losses.append(run.summary["metrics"]["valid/loss"])
    assert losses[1] < losses[0]
    assert not losses[2] <= losses[1]


def test_what_cannot_be_varied_is_told_by_its_path():
    config = jaxlab.load_config(CONFIG)
    with pytest.raises(UsageError, match="0 < low < high"):
        jaxlab.find_rate(config, low=1.0, high=0.1)
    with config.unlocked():
        del config.optimizer.learning_rate
    with pytest.raises(ConfigError, match=r"config\.optimizer\.learning_rate: there is none"):
        jaxlab.find_rate(config)
