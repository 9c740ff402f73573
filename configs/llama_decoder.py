"""Decoders of Llama's sizes on random tokens, to plan: nothing is learnt, and nothing has to be downloaded.

    jaxlab check --config=configs/llama_decoder.py:one_b --devices=8 --hardware=h100
    jaxlab train --config=configs/llama_decoder.py --workdir=runs/speed --config.train.steps=20

``one_b`` has the shapes of Llama 3.2 1B (1,235,814,400 parameters), ``eight_b`` those of Llama 3.1 8B (8,030,261,248);
the default, 110 million, trains anywhere. What the plans say of 8 to 4,096 chips stands in docs/scale.md. For a real
training put your own packed tokens into ``config.data`` (docs/own_data.md).
"""

from ml_collections import ConfigDict

import jaxlab
from jaxlab import spec

VOCABULARY = 128_256


def decoder(length: int, rows: int, **sizes: object) -> ConfigDict:
    """Return the config of a decoder with such sizes."""
    config = jaxlab.base_config()
    config.data.train = spec("jaxlab.data.synthetic:tokens", vocabulary_size=VOCABULARY, length=length)
    config.model = spec(
        "jaxlab.models.decoder:make",
        max_length=length,
        rotary_base=500_000.0,
        epsilon=1e-5,
        scan=True,
        remat="full",
        **sizes,
    )
    config.objective = spec("jaxlab.objectives.language:causal")
    schedule = spec("jaxlab.optim.schedules:warmup_cosine", peak=3e-4)
    config.optimizer = spec("optax:adamw", learning_rate=schedule, b2=0.95, weight_decay=0.1)
    config.train.steps, config.train.batch_size, config.train.precision = 10_000, rows, "bfloat16"
    config.parallel.mesh.data, config.parallel.mesh.fsdp = 1, -1
    return config


def get_config() -> ConfigDict:
    """A decoder of 110 million parameters and 1,024 tokens."""
    return decoder(1024, 8, width=512, depth=8, heads=8, kv_heads=4, hidden=1536)


def one_b() -> ConfigDict:
    """The shapes of Llama 3.2 1B, 8,192 tokens."""
    return decoder(8192, 16, width=2048, depth=16, heads=32, kv_heads=8, hidden=8192)


def eight_b() -> ConfigDict:
    """The shapes of Llama 3.1 8B, 8,192 tokens."""
    return decoder(8192, 16, width=4096, depth=32, heads=32, kv_heads=8, hidden=14_336, tied=False)
