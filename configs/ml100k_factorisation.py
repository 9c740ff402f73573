"""MovieLens-100K: what a user gives a film, by matrix factorisation; the film that comes next, as ``:sasrec``.

python scripts/prepare_data.py ml100k
jaxlab train --config=configs/ml100k_factorisation.py --workdir=runs/ml100k && jaxlab evaluate --workdir=runs/ml100k

Test RMSE 0.910 of ratings split at random, 80/10/10 (step 1400, validation 0.910), seed 0; 5 to 10 seconds on 2 CPU
cores. There the mean of the training ratings has 1.135, users' and films' regularised biases have 0.942.
The preset predicts each user's last film: cross-entropy 6.189 nats a film among 1,682, accuracy 0.0127 (step 500,
validation 5.966 and 0.0159), seed 0; 2 minutes. Films' popularity has 6.951 (validation 6.877), the most popular film
an accuracy of 0.0032. With all films ranked, NDCG@10 is 0.054 [0.044, 0.065] and the hit rate@10 0.118 [0.099, 0.140]
(step 600, as another machine's rounding has it); by popularity in the training rows 0.023 and 0.052.
The preset ``:bpr`` ranks by the factorisation: of all films but those of a user's training rows, the last film has
NDCG@10 0.057 [0.047, 0.069], hit rate@10 0.117 [0.098, 0.138], MRR 0.054 [0.045, 0.063] (step 1000; validation 0.060,
0.127, 0.056), seed 0; 10 seconds. By popularity (`jaxlab baseline --split=test`) 0.043 [0.032, 0.054], 0.082 and 0.040.
"""

from ml_collections import ConfigDict

from jaxlab.core.config import spec
from jaxlab.run.base import base_config


def get_config() -> ConfigDict:
    """Return the factorisation with biases."""
    config = base_config()
    ratings = spec("jaxlab.data.tfds_source:make", name="ml100k", split="train+valid+test")
    for split in ("train", "valid", "test"):  # 80, 10 and 10 % at random, as most published results have it
        config.data[split] = spec("jaxlab.data.splits:part", source=ratings, part=split)
    config.model = spec("jaxlab.models.factorisation:make", factors=64, mean=3.53)
    error = spec("jaxlab.objectives.regress:make", inputs=("user", "item"), target="rating", output="prediction")
    penalties = ((".*_factors/.*", 1.2e-4), (".*_bias/.*", 1e-5), ("offset", 0.0))
    config.objective = spec("jaxlab.objectives.regularise:l2", objective=error, rules=penalties)
    config.metrics.rmse = spec("jaxlab.metrics.regress:rmse")
    config.metrics.mae = spec("jaxlab.metrics.regress:mae")
    schedule = spec("jaxlab.optim.schedules:warmup_cosine", peak=5e-3)
    config.optimizer = spec("optax:adam", learning_rate=schedule)
    config.train.steps = 2000
    config.train.batch_size = 512
    config.train.steps_per_call = 20
    config.train.eval_every = 200
    config.train.best = "valid/rmse"
    return config


def sasrec() -> ConfigDict:
    """Return SASRec: which film comes next, of all films."""
    config = get_config()
    ratings = config.data.train.source
    for split in ("train", "valid", "test"):  # each user's last film is test's, the one before valid's
        config.data[split] = spec("jaxlab.data.histories:make", source=ratings, part=split, length=50)
    config.model = spec("jaxlab.models.sasrec:make", width=64, depth=2, dropout=0.3)
    config.objective = spec(
        "jaxlab.objectives.language:causal", inputs=("items", "item_mask"), tokens="items", token_mask="item_mask"
    )
    config.metrics = ConfigDict()
    for name in ("cross_entropy", "token_accuracy"):
        config.metrics[name] = spec(f"jaxlab.metrics.language:{name}")
    for name in ("ndcg", "hit_rate"):  # of each user's last film among all films
        config.metrics[f"{name}_10"] = spec(f"jaxlab.metrics.ranking:{name}", k=10)
    config.optimizer.learning_rate.peak = 3e-3
    config.train.best = "valid/cross_entropy"
    config.train.steps = 600
    config.train.batch_size = 64
    config.train.steps_per_call = 1
    config.train.eval_every = 100
    return config


def bpr() -> ConfigDict:
    """Return the factorisation trained to rank: what a user chose above what nobody says they chose."""
    config = get_config()
    for split in ("train", "valid", "test"):  # the data's own: each user's last film is test's, the one before valid's
        config.data[split] = spec("jaxlab.data.tfds_source:make", name="ml100k", split=split)
    config.data.transforms = (spec("jaxlab.data.negatives:uniform", count=4), spec("jaxlab.data.seen:items"))
    config.model.mean = 0.0
    ranked = spec("jaxlab.objectives.rank:bpr")
    penalties = ((".*_factors/.*", 1e-5), (".*_bias/.*", 1e-6), ("offset", 0.0))
    config.objective = spec("jaxlab.objectives.regularise:l2", objective=ranked, rules=penalties)
    config.generate = spec("jaxlab.models.catalogue:rank", user="user")  # films of a user's training rows left out
    config.metrics = ConfigDict()
    for name in ("ndcg", "hit_rate"):
        config.metrics[f"{name}_10"] = spec(f"jaxlab.metrics.ranked:{name}", k=10)
    config.metrics.mrr = spec("jaxlab.metrics.ranked:mrr")
    config.train.best = "valid/loss"
    config.train.steps = 1200
    config.train.batch_size = 1024
    return config
