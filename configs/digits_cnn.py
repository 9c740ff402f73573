"""The default: a small CNN on scikit-learn's handwritten digits.

jaxlab train --config=configs/digits_cnn.py --workdir=runs/digits && jaxlab evaluate --workdir=runs/digits

Test accuracy 0.9972 (359 of 360 held-out digits), seed 0; 15 s of training on 2 CPU cores.
"""

from ml_collections import ConfigDict

from jaxlab.core.config import spec
from jaxlab.run.base import base_config


def get_config() -> ConfigDict:
    """Return the CNN."""
    config = base_config()
    for split in ("train", "valid", "test"):
        config.data[split] = spec("jaxlab.data.digits:make", split=split)
    config.data.augment = (spec("jaxlab.data.images:random_shift", pixels=1),)
    config.model = spec("jaxlab.models.cnn:make", channels=(32, 64), hidden=(128,), dropout=0.3)
    config.objective = spec("jaxlab.objectives.classify:make", label_smoothing=0.1)
    config.metrics.accuracy = spec("jaxlab.metrics.classify:accuracy")
    config.metrics.cross_entropy = spec("jaxlab.metrics.classify:cross_entropy")
    schedule = spec("jaxlab.optim.schedules:warmup_cosine", peak=3e-3)
    config.optimizer = spec("optax:adamw", learning_rate=schedule, weight_decay=1e-2)
    config.train.steps = 1200
    config.train.batch_size = 128
    config.train.eval_every = 200
    config.train.checkpoint_every = 200
    config.train.best = "valid/cross_entropy"
    return config


def mlp() -> ConfigDict:
    """Return a multilayer perceptron on the same data, as a baseline."""
    config = get_config()
    config.data.augment = ()
    config.model = spec("jaxlab.models.mlp:make", hidden=(128, 128))
    config.train.log_every = 100
    return config
