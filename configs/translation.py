"""Multi30k: captions of photos from English to German, by a small Transformer, judged by BLEU of what it writes.

python scripts/prepare_data.py multi30k
jaxlab train --config=configs/translation.py --workdir=runs/translation && jaxlab evaluate --workdir=runs/translation

Test (test_2016_flickr, 1,000 captions, untouched references): BLEU 31.0 [29.6, 32.5] by a beam of 4, signature
nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0; chrF2 54.3 [53.2, 55.4]; cross-entropy 2.36 nats a piece
(step 1800, the last; validation 2.45), seed 0; 29 minutes on one CPU core that other work shared. That is a model of
1,950,208 parameters after 4 passes over 29,000 pairs, still improving at the end (BLEU of validation at half the steps:
25.1) and not tuned: a check that all parts work together, not a number to be proud of. It writes short texts (0.94 of
the references' words) and fails at names and rare words.
"""

from ml_collections import ConfigDict

from jaxlab.core.config import spec
from jaxlab.run.base import base_config


def get_config() -> ConfigDict:
    """Return an encoder-decoder of two blocks each, with a vocabulary of byte pairs for each language."""
    config = base_config()
    for split in ("train", "valid", "test"):  # the data's own; the test split is test_2016_flickr
        config.data[split] = spec("jaxlab.data.tfds_source:make", name="multi30k", split=split)
    pieces = "jaxlab.data.tokenize:bpe"
    config.data.transforms = (  # the German one last: its facts are what is written in
        spec(pieces, field="en", length=44, vocabulary_size=4000, output="en_tokens"),
        spec(pieces, field="de", length=62, vocabulary_size=4000, output="de_tokens", begin=True, end=True),
    )
    config.data.precomputed = 2
    config.data.buckets.lengths = (16, 22, 32, 62)  # of the German
    config.data.buckets.fields, config.data.buckets.mask = ("de_tokens", "de_mask"), "de_mask"
    config.model = spec(
        "jaxlab.models.encoder_decoder:make", width=128, depth=2, heads=4, hidden=512, max_length=64, pre_norm=True,
        shared=False, dropout=0.1,
    )  # fmt: skip
    config.objective = spec(
        "jaxlab.objectives.seq2seq:make", inputs=("en_tokens", "en_mask", "de_tokens"), target="de_tokens",
        target_mask="de_mask", label_smoothing=0.1,
    )  # fmt: skip
    config.generate = spec(
        "jaxlab.models.write:translate", source="en_tokens", source_mask="en_mask", target="de_tokens", width=4
    )
    config.metrics.cross_entropy = spec("jaxlab.metrics.language:cross_entropy")
    config.metrics.token_accuracy = spec("jaxlab.metrics.language:token_accuracy")
    config.metrics.bleu = spec("jaxlab.metrics.text:bleu")
    config.metrics.chrf = spec("jaxlab.metrics.text:chrf")
    schedule = spec("jaxlab.optim.schedules:warmup_cosine", peak=2e-3, warmup=300.0)
    config.optimizer = spec("optax:adam", learning_rate=schedule, b2=0.98)
    config.train.steps = 1800
    config.train.batch_size = 64
    config.train.eval_every = config.train.checkpoint_every = 300
    config.train.best = "valid/cross_entropy"
    return config
