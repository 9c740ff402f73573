"""A flag sets exactly the field it names, with the field's type, or explains why not."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from jaxlab.core.config import flatten, spec, to_json
from jaxlab.core.errors import ConfigError
from jaxlab.core.override import override, parse


def sharp(scale: float = 1.0, size: int = 3, limit: float | None = None, crop: int | None = 4) -> Any:
    return (scale, size, limit, crop)


def blunt(scale: float = 2.0, momentum: float = 0.9, limit: float | None = None) -> Any:
    return (scale, momentum, limit)


def outer(inner: Any = None, gain: float = 1.0) -> Any:
    return (inner, gain)


def other_outer(inner: Any = None, bias: bool = False) -> Any:
    return (inner, bias)


@pytest.fixture
def config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "name": "base",
            "verbose": False,
            "train": {"steps": 100, "rate": 0.5, "ema": placeholder(float), "keep": placeholder(int)},
            "data": {
                "transforms": (spec(sharp), spec(blunt)),
                "sizes": (1, 2),
                "rates": (0.1, 0.2),
                "words": ("a", "b"),
                "nested": (("a.*", 0.1), ("b.*", 1.0)),
                "nothing": (),
            },
            "optimizer": spec("optax:adamw", learning_rate=0.1),
            "model": spec(outer, inner=spec(sharp)),
            "untyped": placeholder(object),
        }
    ).lock()


MATRIX = [
    ("seed", "7", 7),
    ("seed", "-3", -3),
    ("seed", " 12 ", 12),
    ("train.steps", "2**12", 4096),
    ("train.steps", "10*60", 600),
    ("train.steps", "1e3", 1000),
    ("train.steps", "50_000 // 128 * 90", 35100),
    ("train.rate", "3", 3.0),
    ("train.rate", "1e-3", 0.001),
    ("train.rate", "0.1 * 256/32", 0.8),
    ("train.rate", "-inf", -math.inf),
    ("train.ema", "1", 1.0),
    ("train.ema", "none", None),
    ("train.keep", "5", 5),
    ("verbose", "true", True),
    ("verbose", "1", True),
    ("verbose", "No", False),
    ("name", "two words, and = more", "two words, and = more"),
    ("name", "12", "12"),
    ("name", "", ""),
    ("name", "none", "none"),
    ("data.sizes", "3,4,5", (3, 4, 5)),
    ("data.sizes", "(3, 4)", (3, 4)),
    ("data.sizes", "[2**3]", (8,)),
    ("data.sizes", "7", (7,)),
    ("data.sizes", "", ()),
    ("data.sizes[1]", "9", 9),
    ("data.sizes[-1]", "9", 9),
    ("data.rates", "1,2", (1.0, 2.0)),
    ("data.words", "x, y,z", ("x", "y", "z")),
    ("data.words", "('x', 'y')", ("x", "y")),
    ("data.words", "[x,y]", ("x", "y")),
    ("data.words", "1,2", ("1", "2")),
    ("data.words", ".*(kernel|bias)", (".*(kernel|bias)",)),
    ("data.words", "'a{1,2}','b'", ("a{1,2}", "b")),
    ("data.words[0]", "a, b", "a, b"),
    ("data.nested", "('c.*', 0.5),('.*', 2)", (("c.*", 0.5), (".*", 2))),
    ("data.nested[0][1]", "3", 3.0),
    ("data.nothing", "1,2", (1, 2)),
    ("data.nothing", "encoder/.*", ("encoder/.*",)),
    ("data.transforms[0].scale", "2", 2.0),
    ("data.transforms[0].limit", "2", 2.0),
    ("data.transforms[1].momentum", "0", 0.0),
    ("model.inner.size", "8", 8),
    ("optimizer.b1", "0", 0.0),
    ("untyped", "3", 3),
    ("untyped", "0.5", 0.5),
    ("untyped", "a word", "a word"),
    ("untyped", "True", True),
    ("untyped", "1j", "1j"),
    ("untyped", "1,2", (1, 2)),
]


@pytest.mark.parametrize(("path", "text", "expected"), MATRIX)
def test_a_flag_sets_the_one_field_it_names_with_the_fields_type(config, path, text, expected):
    before, changed = to_json(config), override(config, {path: text})
    steps = path.replace("[", ".[").split(".")
    value: Any = changed
    for step in steps:
        value = value[int(step[1:-1])] if step.startswith("[") else value[step]
    assert value == expected
    assert type(value) is type(expected)
    others = {name: old for name, old in flatten(config).items() if not path.startswith(name)}
    assert {name: flatten(changed)[name] for name in others} == others
    assert to_json(config) == before, "override changed its input"
    assert changed.is_locked


@pytest.mark.parametrize(
    ("path", "text"), [("train.keep", "5"), ("data.transforms[0].limit", "0.5"), ("untyped", "word")]
)
def test_none_resets_an_optional_that_had_been_set_and_it_can_be_set_again(config, path, text):
    reset = override(override(config, {path: text}), {path: "none"})
    assert flatten(reset) == flatten(config)
    assert flatten(override(reset, {path: text}))[path] == flatten(override(config, {path: text}))[path]


def test_none_turns_off_what_a_config_set_where_the_factory_takes_none():
    config = ConfigDict({"model": spec(outer, inner=spec(sharp)), "plain": spec(sharp, limit=2.0)})
    assert override(config, {"plain.limit": "none"}).plain.limit is None
    assert override(config, {"model.inner": "none"}).model.inner is None
    with pytest.raises(ConfigError, match=r"plain\.crop='none'"):
        override(config, {"plain.crop": "none"})


def test_an_unset_optional_keeps_its_type_after_it_was_set(config):
    once = override(config, {"train.ema": "1"})
    assert override(once, {"train.ema": "0.5"}).train.ema == 0.5


def test_swapping_a_factory_keeps_changed_shared_values_and_drops_the_rest(config):
    changed = override(override(config, {"optimizer.b1": "0.5"}), {"optimizer.factory": "optax:sgd"})
    expected = spec("optax:sgd", learning_rate=0.1)
    assert flatten(changed.optimizer) == flatten(expected)
    swapped = override(config, {"data.transforms[0].scale": "7", "data.transforms[0].factory": f"{__name__}:blunt"})
    assert flatten(swapped.data.transforms[0]) == flatten(spec(blunt, scale=7.0))
    default = override(config, {"data.transforms[0].factory": f"{__name__}:blunt"})
    assert default.data.transforms[0].scale == 2.0, "an untouched default of the old factory is not carried over"


def test_optionals_of_a_swapped_in_factory_are_typed(config):
    changed = override(config, {"optimizer.factory": f"{__name__}:blunt"})
    assert override(changed, {"optimizer.limit": "3"}).optimizer.limit == 3.0


def test_the_order_of_a_factory_swap_and_of_other_flags_does_not_matter(config):
    flags = {
        "optimizer.momentum": "0.9",
        "optimizer.factory": "optax:sgd",
        "model.inner.momentum": "0.1",
        "model.inner.factory": f"{__name__}:blunt",
        "model.bias": "true",
        "model.factory": f"{__name__}:other_outer",
        "train.steps": "3",
    }
    results = set()
    for seed in range(20):
        order = random.Random(seed).sample(list(flags), len(flags))
        results.add(to_json(override(config, {path: flags[path] for path in order})))
    assert len(results) == 1
    changed = override(config, flags)
    assert (changed.optimizer.momentum, changed.model.inner.momentum, changed.model.bias) == (0.9, 0.1, True)


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("train.stepz", "'steps'"),
        ("optimiser.b1", "'optimizer'"),
        ("optimizer.beta1.x", "b1"),
        ("data.transforms[0].scal", "'scale'"),
        ("model.inner.siz", "'size'"),
        ("train.factory", "valid names|did you"),
        ("seed.x", "no field 'x'"),
        ("seed[0]", "no field"),
        ("untyped.x", "no field 'x'"),
    ],
)
def test_a_wrong_name_is_refused_with_its_path_and_the_nearest_valid_name(config, path, nearest):
    with pytest.raises(ConfigError, match=nearest) as caught:
        override(config, {path: "1"})
    assert f"config.{path}" in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "train.",
        ".train",
        "train..steps",
        "data.sizes[",
        "data.sizes[a]",
        "a b",
        "data.sizes[2]",
        "data.sizes[-3]",
        "data.sizes.x",
        "data.sizes[" + "9" * 5000 + "]",
        "data.transforms[9].scale",
        "data.transforms.scale",
        "train[0]",
        "__class__",
    ],
)
def test_a_path_that_leads_nowhere_is_a_config_error(config, path):
    with pytest.raises(ConfigError, match=r"^config\."):
        override(config, {path: "1"})


@pytest.mark.parametrize("text", ["", "nope:x", "optax:sgdd", "optax", ":x", ".x:y", "math:pi"])
def test_a_factory_that_does_not_exist_is_refused_with_its_path(config, text):
    with pytest.raises(ConfigError, match=r"config\.optimizer\.factory"):
        override(config, {"optimizer.factory": text})


HOSTILE = [
    *[
        ("seed", text, "an integer")
        for text in (
            "1.5",
            "",
            "nan",
            "inf",
            "-inf",
            "2**9999999",
            '__import__("os")',
            "(lambda: 1)()",
            "true",
            "True",
            "none",
            "None",
            "1j",
            "'1'",
            "b'1'",
            "...",
            "1/0",
            "1 2",
            "1,2",
            "[]",
            "seed",
            "1 if 1 else 2",
            "\0",
            "9" * 5000,
            "((((2**64)**64)**64)**64)**64",
            "'a'*10**12",
            "(1,)*10**12",
            "-" * 50_000 + "1",
            "(" * 5000,
            "2**-1",
            "1e400",
            "1//0",
            "x" * 100_000,
        )
    ],
    *[("train.rate", text, "a number") for text in ("", "fast", "1,5", "0.1.2", "1e", "10**400", "(-1)**0.5", "none")],
    *[("train.keep", text, "an integer") for text in ("1.5", "many", "nan", "")],
    *[("verbose", text, "true or false") for text in ("", "2", "maybe", "none", "0.0")],
    *[("data.sizes", text, "a tuple of int") for text in ("1,a", "1.5", "true", "nan,1", "1,,2", "((1,2),3)", "none")],
    *[("data.rates", text, "a tuple of float") for text in ("a", "1,'b'", "True")],
    *[("data.nested", text, "a tuple of tuple") for text in ("1,2", "'a'")],
    ("data.sizes[0]", "1.5", "an integer"),
    ("data.transforms", "1", "a tuple of ConfigDict"),
    ("data.transforms[0].scale", "big", "a number"),
    ("train", "1", "set one of its fields: .*steps"),
]


@pytest.mark.parametrize(("path", "text", "expected"), HOSTILE, ids=[f"{p}={t[:20]!r}" for p, t, _ in HOSTILE])
def test_a_text_of_the_wrong_type_is_refused_with_path_value_and_expected_type(config, path, text, expected):
    with pytest.raises(ConfigError, match=expected) as caught:
        override(config, {path: text})
    assert f"config.{path}=" in str(caught.value)
    assert repr(text[:20])[1:-1] in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_any_number_survives_being_written_and_parsed():
    rng = random.Random(0)
    for _ in range(2000):
        whole = rng.randint(-(10 ** rng.randint(1, 30)), 10 ** rng.randint(1, 30))
        assert parse(str(whole), 0, int, "x") == whole
        real = rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300)
        for text in (str(real), repr(real)):
            assert parse(text, 0.0, float, "x") == real
        sizes = tuple(rng.randint(-99, 99) for _ in range(rng.randint(0, 4)))
        assert parse(str(sizes), (1,), tuple, "x") == sizes
    assert math.isnan(parse("nan", 0.0, float, "x"))
