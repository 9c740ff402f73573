"""Sources, transforms, augmentations and sampling rules, each held to its contract; see `test_contracts`."""

import json
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_cases import CLASSES, MIXED, SIZE, write_files
from contract_discovery import HALVES, Case, each, make, make_batch, returned

from jaxlab.core.types import DataSpec, Fittable
from jaxlab.data.column_source import ColumnSource
from jaxlab.data.pipeline import RowRandomness
from jaxlab.data.subset import Subset


@pytest.fixture(scope="session")
def contract_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contracts")
    write_files(folder)
    return folder


@pytest.fixture
def beside_files(contract_files, stand_in_data, monkeypatch):
    """Run where the files lie that the cases name."""
    monkeypatch.chdir(contract_files)


@each("source")
def test_a_source_stacks_rows_as_its_spec_says(case, beside_files):
    source, again = make(case), make(case)
    spec = source.spec
    assert isinstance(spec, DataSpec)
    assert len(source) == spec.size > 1
    indices = np.array([1, 0, spec.size - 1, 1])
    rows = source.__getitems__(indices)
    assert set(rows) == set(spec.example)
    for name, example in spec.example.items():
        assert rows[name].shape == (4, *example.shape)
        assert rows[name].dtype == example.dtype
        alone = np.stack([source.__getitems__(np.array([i]))[name][0] for i in indices])
        np.testing.assert_array_equal(rows[name], alone)
        np.testing.assert_array_equal(rows[name], again.__getitems__(indices)[name])
    assert spec == again.spec


def run_transform(transform, source, rows=slice(None)):
    """Transform some rows of a batch that is all of `source`; what is given cannot be changed."""
    fields = {**source.__getitems__(np.arange(SIZE)[rows]), "id": np.arange(SIZE, dtype=np.int32)[rows]}
    for value in fields.values():
        value.setflags(write=False)
    return transform(MappingProxyType(fields), RowRandomness(np.random.default_rng(3), SIZE, rows))


def check_transform(transform, source):
    whole, again = run_transform(transform, source), run_transform(transform, source)
    for rows in (HALVES, [slice(row, row + 1) for row in range(SIZE)]):
        parts = [run_transform(transform, source, part) for part in rows]
        assert all(part.keys() == whole.keys() == again.keys() for part in parts)
        for name in whole:
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(whole[name], joined, f"{name} depends on the other rows", strict=True)
    for name in whole:
        assert len(whole[name]) == SIZE
        np.testing.assert_array_equal(whole[name], again[name])
    assert np.array_equal(whole["id"], np.arange(SIZE))
    return whole


@each("transform")
def test_a_transform_is_pure_and_treats_a_row_alike_whichever_process_reads_it(case):
    check_transform(make(case), case.sample)


@each("fittable")
def test_what_is_learnt_is_json_of_the_training_split_alone_and_binds_to_a_transform(case):
    fittable, source, train = make(case), case.sample, np.array([0, 2, 3, 5, 6, 9])
    assert isinstance(fittable, Fittable)
    learnt = fittable.fit(Subset(source, train, {}))
    text = json.dumps(learnt, allow_nan=False)
    assert json.loads(text) == learnt
    alone = ColumnSource(source.__getitems__(train), source.spec.meta)  # what is not here cannot be learnt from
    assert fittable.fit(alone) == make(case).fit(alone) == learnt
    whole = check_transform(fittable.bind(learnt), source)
    for other in (fittable, make(case)):
        found = run_transform(other.bind(json.loads(text)), source)
        assert found.keys() == whole.keys()
        for name in whole:
            np.testing.assert_array_equal(found[name], whole[name], strict=True)
    assert json.dumps(learnt) == text
    facts = fittable.meta(learnt)
    assert facts == fittable.meta(json.loads(text))
    assert all(isinstance(name, str) for name in facts)


@each("device")
def test_a_device_transform_is_a_function_of_batch_and_key_and_blind_to_padded_rows(case):
    transform, batch = jax.jit(make(case)), make_batch()
    traced, retraced = (jax.make_jaxpr(make(case))(batch, jax.random.key(0)) for _ in range(2))
    assert str(traced) == str(retraced)
    assert jax.tree.all(jax.tree.map(np.array_equal, traced.consts, retraced.consts)), "it draws on the host"
    real = batch["mask"] > 0
    unlike = {
        **batch,
        "image": np.where(real[:, None, None, None], batch["image"], np.nan),
        "label": np.where(real, batch["label"], CLASSES - 1 - batch["label"]),
    }
    for key in jax.random.split(jax.random.key(0), 4):
        result, again, other = transform(batch, key), transform(batch, key), transform(unlike, key)
        assert batch.keys() <= result.keys() == other.keys()
        for name in result:
            assert len(result[name]) == SIZE
            assert np.array_equal(result[name], again[name])
            np.testing.assert_array_equal(np.asarray(result[name])[real], np.asarray(other[name])[real])
        for name, value in batch.items():
            assert (result[name].shape, result[name].dtype) == (value.shape, jnp.asarray(value).dtype)
        assert all(np.array_equal(result[name], batch[name]) for name in ("id", "mask"))


@each("sampling")
def test_a_sampling_rule_weighs_each_row_of_the_training_source_with_a_mean_of_one(case):
    for source in (MIXED, Subset(MIXED, np.arange(1, len(MIXED), 2), {})):
        weights = make(case)(source)
        assert weights.shape == (len(source),)
        assert weights.dtype.kind == "f"
        assert np.isfinite(weights).all()
        assert (weights >= 0).all()
        assert weights.mean() == pytest.approx(1)
        assert np.array_equal(weights, make(case)(source))


def changes_its_input():
    return lambda fields, _: {**fields, "image": np.add(fields["image"], 1, out=fields["image"])}


def looks_at_other_rows():
    return lambda fields, _: {**fields, "image": fields["image"] - fields["image"].mean(axis=0)}


def draws_by_itself():
    return lambda fields, _: {**fields, "noise": np.random.default_rng(0).uniform(size=len(fields["id"]))}


def loses_ids():
    return lambda fields, _: {**fields, "id": fields["id"][..., None]}


def learns_from_all_splits():
    return Fittable(lambda source: {"rows": len(getattr(source, "base", source))}, lambda _: lambda fields, _: fields)


def learns_what_is_no_json():
    return Fittable(lambda source: {"classes": (0, 1, 2)}, lambda _: lambda fields, _: fields)


def mixes_padding_in():
    return lambda batch, _: {**batch, "image": jnp.roll(batch["image"], 1, axis=0)}


def draws_on_the_host():
    return lambda batch, _: {**batch, "image": batch["image"] + np.random.default_rng().uniform()}


def weighs_more_than_one():
    return lambda source: np.full(len(source), 2.0)


def serves_what_its_spec_does_not_say():
    source = ColumnSource({"x": np.arange(SIZE)})
    source._spec = source.spec._replace(example={"x": jax.ShapeDtypeStruct((), np.float32)})
    return source


OFFENDERS = [
    (test_a_source_stacks_rows_as_its_spec_says, serves_what_its_spec_does_not_say),
    (test_a_transform_is_pure_and_treats_a_row_alike_whichever_process_reads_it, changes_its_input),
    (test_a_transform_is_pure_and_treats_a_row_alike_whichever_process_reads_it, looks_at_other_rows),
    (test_a_transform_is_pure_and_treats_a_row_alike_whichever_process_reads_it, draws_by_itself),
    (test_a_transform_is_pure_and_treats_a_row_alike_whichever_process_reads_it, loses_ids),
    (test_what_is_learnt_is_json_of_the_training_split_alone_and_binds_to_a_transform, learns_from_all_splits),
    (test_what_is_learnt_is_json_of_the_training_split_alone_and_binds_to_a_transform, learns_what_is_no_json),
    (test_a_device_transform_is_a_function_of_batch_and_key_and_blind_to_padded_rows, mixes_padding_in),
    (test_a_device_transform_is_a_function_of_batch_and_key_and_blind_to_padded_rows, draws_on_the_host),
    (test_a_sampling_rule_weighs_each_row_of_the_training_source_with_a_mean_of_one, weighs_more_than_one),
]


@pytest.mark.parametrize(("held", "offender"), OFFENDERS, ids=[offender.__name__ for _, offender in OFFENDERS])
def test_a_factory_that_breaks_its_contract_is_caught(held, offender):
    case = Case(f"{__name__}:{offender.__name__}", "", {})
    with pytest.raises((AssertionError, ValueError)):
        held(case, *([None] if held is test_a_source_stacks_rows_as_its_spec_says else []))


def test_an_annotation_that_could_hide_a_contract_is_refused_and_a_late_library_s_is_not():
    def function():
        """Stand in for a function of a leaf."""

    function.__annotations__ = {"rows": "Nowhere", "return": "pa.Table"}
    assert returned(function) is None
    function.__annotations__ = {"return": "Source"}
    with pytest.raises(TypeError, match="import Source also at run time"):
        returned(function)
