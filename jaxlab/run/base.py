"""The documented base of every config: the fields that all runs have, and what they mean.

A config file calls `base_config` and sets what differs.
"""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jaxlab.core.config import spec
from jaxlab.models.sharding import RULES


def base_config() -> ConfigDict:
    """Return a config that lacks only what is to be trained: data, model, objective, metrics and optimizer."""
    config = ConfigDict()
    config.seed = 0  # decides initial weights, dropout, and unless config.data.seed does, data order and augmentation
    config.deterministic = False  # whether a GPU gives the same bits again, at a cost; a CPU always does

    config.data = ConfigDict()  # train, valid, test: sources; train is needed, the others are optional
    config.data.seed = placeholder(int)  # of data order and augmentation, where it is not the run's own
    config.data.transforms = ()  # applied to every split, in order; those that learn do so from train only
    config.data.precomputed = 0  # how many of the first transforms are applied once, their result kept on disk
    config.data.augment = ()  # applied to training batches only, after the transforms
    config.data.device_augment = ()  # the same within the compiled step: functions of a batch and a key
    config.data.sampling = ConfigDict()  # how often training draws each row; empty: once an epoch
    config.data.buckets = ConfigDict()  # training batches of rows of similar length, cut to it
    config.data.buckets.lengths = ()  # rising, the last at least the longest row's; empty: rows are not cut
    config.data.buckets.fields = ("tokens", "token_mask")  # [B, T, ...], cut to the batch's length T
    config.data.buckets.mask = "token_mask"  # [B, T], 1 where a token is
    config.data.workers = 0  # more hands: threads for data in memory, else Grain's processes; 0 reads on one thread

    config.model = ConfigDict()
    config.init = ConfigDict()  # values to begin from instead of random ones, such as another library's weights
    config.objective = ConfigDict()
    config.metrics = ConfigDict()  # by name
    config.generate = ConfigDict()  # what `evaluate` asks of the model besides, such as texts that it writes
    config.optimizer = ConfigDict()

    config.train = ConfigDict()
    config.train.steps = 1000
    config.train.batch_size = 128  # global: over all devices and hosts, and over all microbatches
    config.train.grad_accumulation = 1  # microbatches a step, scanned
    config.train.steps_per_call = 1  # steps a dispatch; the results are the same
    config.train.precision = "float32"  # or bfloat16: computes in it, parameters stay float32
    config.train.ema = placeholder(float)  # decay of the parameters' moving average, used by evaluation
    config.train.log_every = 50
    config.train.grad_norm = False  # whether rows carry the gradient's norm (a fifth of the step of a tiny model)
    config.train.non_finite = "abort"  # or skip (leave the step out), or rollback (to a checkpoint, past the data)
    config.train.non_finite_limit = 10  # steps in a row that skip, times that rollback may take before the run ends
    config.train.spike = 10.0  # robust deviations of the loss above its recent median that are worth a warning; 0: none
    config.train.watchdog = 3600.0  # seconds without a step, evaluation or save after which the process ends; 0: never
    config.train.eval_every = 500  # on data.valid; the state is saved then as well
    config.train.checkpoint_every = 500
    config.train.keep = 2  # latest checkpoints that stay, besides the best
    config.train.best = "valid/loss"  # what evaluation measures and decides which checkpoint is best
    config.train.best_mode = "min"

    config.parallel = ConfigDict()
    config.parallel.strategy = "jit"  # or pmap
    config.parallel.mesh = ConfigDict({"data": -1, "fsdp": 1, "sequence": 1, "tensor": 1})  # one -1: all that are left
    config.parallel.rules = RULES  # ordered (expression, axes of a parameter's last dimensions)
    config.parallel.offload = ""  # or optimizer: its arrays lie in the host's memory between steps

    config.hooks = ConfigDict()  # by name: factories of a Periodic
    config.sinks = ConfigDict()
    config.sinks.console = spec("jaxlab.track.console:make")
    config.sinks.tensorboard = spec("jaxlab.track.tensorboard:make")
    return config
