"""Order and noise are the same for any number of workers and hosts and after a resume: of texts, drawn or bucketed."""

import dataclasses

import numpy as np
import pytest

from jaxlab.data import feeding, sampling, text_noise
from jaxlab.data.arrays import ArraySource
from jaxlab.data.bucketing import Buckets, token_lengths
from jaxlab.data.order import Weights
from jaxlab.data.pipeline import Batches

SIZE, BATCH, STEPS = 30, 8, 9  # batches cross epochs
NOISE = (
    text_noise.token_dropout(replacement_id=3, probability=0.3),
    text_noise.word_swap(probability=0.3),
    text_noise.word_deletion(probability=0.3),
    text_noise.span_masking(mask_id=4, vocabulary_size=20),
)


class OnDisk(ArraySource):
    """Asks to be read by processes; importable, so that a spawned worker finds it."""

    in_memory = False


def batches(order, source=ArraySource):
    lengths = np.arange(SIZE) % 12 + 1
    mask = (np.arange(12) < lengths[:, None]).astype(np.float32)
    tokens = np.random.default_rng(0).integers(5, 20, mask.shape).astype(np.int32)
    rows = source({"tokens": tokens * mask.astype(np.int32), "token_mask": mask, "label": lengths % 5 // 4})
    made = Batches(rows, NOISE, BATCH, 7, training=True)
    if order == "sampled":
        return dataclasses.replace(made, weights=Weights(sampling.square_root()(rows)))
    names = ("tokens", "token_mask", "targets", "target_mask")
    return dataclasses.replace(made, buckets=Buckets(token_lengths(rows), (4, 8, 12), BATCH, 7, names))


def same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], name)


each_order = pytest.mark.parametrize("order", ["sampled", "bucketed"])


@each_order
@pytest.mark.parametrize("hosts", [2, 4])
def test_the_hosts_rows_side_by_side_are_the_global_batch(order, hosts):
    share = BATCH // hosts
    parts = [dataclasses.replace(batches(order), rows=slice(i * share, (i + 1) * share)) for i in range(hosts)]
    for step in range(STEPS):
        pieces = [part[step] for part in parts]
        same({name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}, batches(order)[step])


@each_order
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("source", [ArraySource, pytest.param(OnDisk, marks=pytest.mark.exhaustive)])
def test_workers_and_a_resume_change_nothing(order, workers, first, source):
    fed = feeding.feed(batches(order, source), first=first, last=STEPS, chunk=1, put=lambda host: host, workers=workers)
    found = {step: {name: np.array(value[0]) for name, value in fields.items()} for step, fields in fed}
    assert list(found) == list(range(first, STEPS))
    for step, fields in found.items():
        same(fields, batches(order)[step])
