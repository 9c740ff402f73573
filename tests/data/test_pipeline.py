"""Batches are a pure function of (seed, step): who reads them, in which pieces and from where on, changes nothing."""

import dataclasses
import itertools
import threading

import jax
import numpy as np
import pytest

from jaxlab.data import feeding, images, mixture, pipeline, windows
from jaxlab.data.arrays import ArraySource, in_memory
from jaxlab.data.bucketing import Buckets
from jaxlab.data.subset import Subset

SIZE, BATCH = 21, 8  # batches cross epochs


def make_source():
    images_NHWC = np.random.default_rng(0).integers(0, 256, (SIZE, 6, 5, 3)).astype(np.uint8)
    return ArraySource({"image": images_NHWC, "label": np.arange(SIZE)}, {"classes": ("a", "b")})


def make_batches(training=True, transforms=None, seed=7, batch_size=BATCH, rows=slice(None)):
    default = (images.random_flip(), images.random_shift(pixels=2), images.random_erase(), images.rescale())
    chosen = default if transforms is None else transforms
    return pipeline.Batches(make_source(), chosen, batch_size, seed, training, rows)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert np.array_equal(found[name], expected[name]), name
        assert found[name].dtype == expected[name].dtype, name


def fed(first=0, last=12, chunk=1, workers=0, batches=None):
    """Return the batches from `first` on as `feed` yields them, chunks taken apart, those before `first` left out."""
    steps = {}
    for start, fields in feeding.feed(
        batches or make_batches(), first=first, last=last, chunk=chunk, put=lambda host: host, workers=workers
    ):
        for i in range(chunk):
            steps[start + i] = {name: np.array(value[i]) for name, value in fields.items()}
    return [steps[step] for step in range(first, last)]


def test_a_batch_is_a_function_of_seed_and_step_alone():
    read_late, fresh = make_batches(), make_batches()
    for number in (9, 0, 3):
        read_late[number]
    assert_equal(read_late[5], fresh[5])


@pytest.mark.parametrize("change", [{"seed": 8}, {}])
def test_another_seed_or_step_gives_other_examples_and_other_augmentation(change):
    changed = dataclasses.replace(make_batches(), **change)[0 if change else 3]
    assert not np.array_equal(changed["id"], make_batches()[0]["id"])
    every_row = dataclasses.replace(make_batches(), batch_size=SIZE)
    other_row = dataclasses.replace(every_row, **change)[0 if change else 1]
    by_id = [batch["image"][np.argsort(batch["id"])] for batch in (every_row[0], other_row)]
    assert not np.array_equal(*by_id)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_rows_of_all_processes_side_by_side_are_the_global_batch_augmented_content_included(training, processes):
    share = BATCH // processes
    for number in (0, 2):
        parts = [
            make_batches(training, rows=slice(i * share, (i + 1) * share))[number] for i in range(processes)
        ]  # fmt: skip
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert_equal(joined, make_batches(training)[number])


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 4), (3, 5), (2, 11)])
def test_a_chunk_is_its_single_batches_stacked(first, count):
    batches = make_batches()
    chunk = batches.chunk(first, count)
    for i in range(count):
        assert_equal({name: value[i] for name, value in chunk.items()}, batches[first + i])


def test_a_transform_of_a_batch_does_not_change_the_source():
    source = make_source()
    before = {name: value.copy() for name, value in source.__getitems__(np.arange(SIZE)).items()}
    batches = dataclasses.replace(make_batches(), source=source)
    for number in range(4):
        batches[number]["image"][:] = 0
    assert_equal(source.__getitems__(np.arange(SIZE)), before)


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("first", [0, 1, 5, 11])
def test_feeding_from_any_step_in_any_chunk_yields_what_feeding_from_the_beginning_does(first, chunk):
    last = 12
    expected = [make_batches()[step] for step in range(first, last)]
    for found, wanted in zip(fed(first, last, chunk), expected, strict=True):
        assert_equal(found, wanted)


class OnDisk(ArraySource):
    """Asks to be read by processes; importable, so that a spawned worker finds it."""

    in_memory = False


def on_disk():
    source = make_source()
    return OnDisk(source.__getitems__(np.arange(SIZE)), source.spec.meta)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("source", [make_source, pytest.param(on_disk, marks=pytest.mark.slow)])
def test_workers_yield_the_same_batches_also_after_a_resume_and_with_closures_as_transforms(source, workers):
    double = 2.0
    transforms = (images.random_shift(pixels=1), lambda fields, _: {**fields, "image": fields["image"] * double})
    batches = dataclasses.replace(make_batches(transforms=transforms), source=source())
    for found, wanted in zip(
        fed(3, 9, 2, workers=workers, batches=batches), fed(3, 9, 2, batches=batches), strict=True
    ):
        assert_equal(found, wanted)


@pytest.mark.parametrize("in_memory", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_exception_in_a_worker_reaches_the_consumer(in_memory):
    broken = dataclasses.replace(make_batches(transforms=()), source=Broken())
    broken.source.in_memory = in_memory
    with pytest.raises(RuntimeError, match="the disk is gone"):
        list(feeding.feed(broken, first=0, last=4, chunk=1, put=lambda host: host, workers=1))


def test_sources_over_others_are_in_memory_where_those_are():
    def views(source):
        mixed = mixture.make((source, source), (1.0, 1.0))
        windowed = windows.make(source, length=2, horizon=1, inputs=("image",), targets=("label",))
        return [source, Subset(source, np.arange(3), {}), mixed, windowed]

    assert all(map(in_memory, views(make_source())))
    assert not any(map(in_memory, views(on_disk())))
    assert not in_memory(mixture.make((make_source(), on_disk()), (1.0, 1.0)))


@pytest.mark.parametrize("batch_size", [SIZE, 8, 64])
def test_evaluation_batches_hold_each_row_once_in_order_and_mask_the_padding(batch_size):
    batches = make_batches(training=False, transforms=(), batch_size=batch_size)
    every = [batches[i] for i in range(len(batches))]
    joined = {name: np.concatenate([batch[name] for batch in every]) for name in every[0]}
    real = joined["mask"] == 1
    assert np.array_equal(joined["id"][real], np.arange(SIZE))
    assert_equal({n: joined[n][real] for n in ("image", "label")}, make_source().__getitems__(np.arange(SIZE)))
    assert joined["mask"].sum() == SIZE


def test_training_batches_are_never_padded():
    assert all(make_batches(transforms=(), batch_size=size)[2]["mask"].all() for size in (4, 8, 50))


class Broken(ArraySource):
    """Fails when its example 5 is read; importable, so that a spawned worker finds it."""

    def __init__(self):
        super().__init__({"x": np.arange(SIZE)})

    def __getitems__(self, indices):
        if 5 in indices:
            raise RuntimeError("the disk is gone")
        return super().__getitems__(indices)


def test_an_exception_in_the_source_reaches_the_consumer_after_the_batches_before_it():
    broken = pipeline.Batches(Broken(), (), 2, 0, training=False)
    seen = feeding.feed(
        dataclasses.replace(broken), first=0, last=5, chunk=1, put=lambda host: host["x"].ravel().tolist()
    )
    before = list(itertools.islice(seen, 2))
    assert sorted(x for _, pair in before for x in pair) == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="the disk is gone"):
        list(seen)


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "jaxlab-prefetch"]


@pytest.mark.parametrize("abandon", ["close", "exception", "exhaust"])
def test_the_fetching_thread_ends_with_its_iterator(abandon):
    before = prefetch_threads()
    feed = feeding.feed(make_batches(), first=0, last=500 if abandon != "exhaust" else 3, chunk=1, put=lambda x: x)
    next(feed)
    assert len(prefetch_threads()) > len(before) or abandon == "exhaust"
    if abandon == "close":
        feed.close()
    elif abandon == "exhaust":
        list(feed)
    else:
        with pytest.raises(ZeroDivisionError):
            feed.throw(ZeroDivisionError())
    assert prefetch_threads() == before


def test_prefetching_runs_ahead_by_no_more_than_its_depth():
    taken = []
    items = feeding.prefetch((taken.append(i) or i for i in range(100)), depth=2)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    items.close()
    assert len(taken) <= 5 + 2 + 1  # two queued, one in the producer's hand


def test_transformed_spec_tells_the_shapes_and_dtypes_that_batches_have():
    def crop(fields, _):
        return {"image": fields["image"][:, 1:3].astype(np.float16), "size": np.full(len(fields["label"]), 2, np.int8)}

    source = make_source()
    assert pipeline.transformed_spec(source, ()) == source.spec
    spec = pipeline.transformed_spec(source, (crop,))
    batch = make_batches(transforms=(crop,))[0]
    expected = {n: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for n, v in batch.items() if n not in ("id", "mask")}
    assert spec == source.spec._replace(example=expected)
    assert spec.size == SIZE


@pytest.mark.parametrize(("size", "steps"), [(4, 32), (2**14, 15), (2**16, 3), (2**19, 1)])
def test_small_batches_travel_together_and_large_ones_alone(size, steps):
    source = ArraySource({"x": np.zeros((2, size), np.uint8)})
    assert feeding.chunk_steps(pipeline.Batches(source, (), 1, 0, training=True)) == steps


def make_token_batches(length=16, rows=slice(None)):
    lengths = np.random.default_rng(0).integers(1, length + 1, 40)
    mask = (np.arange(length) < lengths[:, None]).astype(np.float32)
    source = ArraySource({"tokens": (mask * 7).astype(np.int32), "token_mask": mask})
    buckets = Buckets(lengths, (4, 8, 16), BATCH, 0)
    return pipeline.Batches(source, (), BATCH, 0, training=True, rows=rows, buckets=buckets)


def test_bucketed_batches_are_cut_to_their_bucket_and_lose_no_token():
    batches = make_token_batches()
    assert feeding.chunk_steps(batches) == 1
    whole = [batches[step] for step in range(40 // BATCH)]
    assert {batch["tokens"].shape[1] for batch in whole} <= {4, 8, 16}
    assert len({batch["tokens"].shape[1] for batch in whole}) > 1
    kept = batches.source.__getitems__(np.concatenate([batch["id"] for batch in whole]))
    assert sum(batch["token_mask"].sum() for batch in whole) == kept["token_mask"].sum()
    half = make_token_batches(rows=slice(0, BATCH // 2))[1]
    assert_equal(half, {name: value[: BATCH // 2] for name, value in whole[1].items()})


def test_the_bytes_of_a_batch_are_those_of_this_process():
    whole, half = make_batches(), make_batches(rows=slice(0, BATCH // 2))
    assert feeding.batch_bytes(whole) == 2 * feeding.batch_bytes(half)
    assert feeding.batch_bytes(whole) == BATCH * (
        6 * 5 * 3 * 4 + 4 + 4 + 4
    )  # float32 image; label, id and mask of four bytes each
