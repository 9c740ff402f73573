"""Tiny Shakespeare by characters: nanoGPT's small CPU setting, 4 layers × 128, 2,000 steps of 12 rows of 64 characters.

python scripts/prepare_data.py tinyshakespeare
jaxlab train --config=configs/shakespeare_decoder.py --workdir=runs/shakespeare

Cross-entropy of the last tenth of the text (step 2000, all of its characters): 1.896, 1.888 and 1.881 nats a character
with seeds 0, 1 and 2. nanoGPT's README has 1.88, an estimate from some random pieces of the same tenth. Rows here lie
end to end and do not overlap, so that the model meets 15,686 pieces of text and not a million; tokens are bytes, of
which the text has 65. A 5-gram has 1.700 (`jaxlab baseline --config=configs/shakespeare_decoder.py`): at this size and
time the decoder is behind it.
"""

from ml_collections import ConfigDict

from jaxlab.core.config import spec
from jaxlab.run.base import base_config


def get_config() -> ConfigDict:
    """Return GPT-2's architecture at nanoGPT's size for a CPU."""
    config = base_config()
    for split in ("train", "valid"):  # the first nine tenths of the text, and the rest
        speeches = spec("jaxlab.data.tfds_source:make", name="tinyshakespeare", split=split)
        config.data[split] = spec("jaxlab.data.packed:make", source=speeches, length=64, mode="stream", end=False)
    config.model = spec(
        "jaxlab.models.decoder:gpt2", width=128, depth=4, heads=4, max_length=64, dropout=0.0, attention_dropout=0.0
    )
    config.objective = spec("jaxlab.objectives.language:causal")
    config.metrics.cross_entropy = spec("jaxlab.metrics.language:cross_entropy")
    schedule = spec("jaxlab.optim.schedules:warmup_cosine", peak=1e-3, warmup=100.0, end=0.1)
    decayed = spec(
        "jaxlab.optim.rules:make", optimizer=spec("optax:adam", b2=0.99), learning_rate=schedule,
        weight_decay=((".*/(kernel|embedding)", 0.1), (".*", 0.0)),
    )  # fmt: skip
    clip = spec("optax:clip_by_global_norm", max_norm=1.0)
    config.optimizer = spec("jaxlab.optim.chain:make", transforms=(clip, decayed))
    config.train.steps = 2000
    config.train.batch_size = 12
    config.train.eval_every = 500
    return config
