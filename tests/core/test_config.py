"""Configs are complete, checked when written, and the same after a trip through JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ml_collections import ConfigDict

from jaxlab.core.config import build, diff, flatten, from_json, load, presets, spec, to_json
from jaxlab.core.errors import ConfigError
from jaxlab.core.override import override

if TYPE_CHECKING:
    from nowhere import Unimportable  # names that exist for a type checker only are common in users' files

CALLS: list[str] = []


def make(
    width: int,
    depth: int = 2,
    *,
    rate: float | None = None,
    seed: int | None = None,
    name: str | None = None,
    sizes: tuple[int, ...] | None = None,
    anything: dict[str, int] | None = None,
    scale: float = 1.0,
) -> dict[str, Any]:
    CALLS.append("make")
    return dict(locals())


def wrap(inner: Any, total_steps: int, factor: float = 0.5) -> dict[str, Any]:
    CALLS.append("wrap")
    return {"inner": inner, "total_steps": total_steps, "factor": factor}


def gather(parts: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    return parts


def half_typed(thing: Unimportable | None = None, rate: float | None = None) -> Any:
    return (thing, rate)


def open_ended(first: int = 1, **options: Any) -> dict[str, Any]:
    return {"first": first, **options}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


HEADER = "from jaxlab.core.config import spec\nfrom ml_collections import ConfigDict\n"


def test_spec_writes_every_default_of_the_signature_and_leaves_required_ones_to_the_context():
    node = spec("test_config:make", depth=5)
    assert dict(node) == {
        "factory": "test_config:make",
        "depth": 5,
        "scale": 1.0,
        **dict.fromkeys(("rate", "seed", "name", "sizes", "anything")),
    }
    assert spec("optax:adamw", learning_rate=1e-3).b1 == 0.9


def test_spec_refuses_an_unknown_keyword_and_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no keyword 'widht'; did you mean 'width'"):
        spec("test_config:make", widht=3)
    assert spec("test_config:open_ended", extra=3).extra == 3


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("optax:adamv", "did you mean 'adam"),
        ("no_such_module:x", "no_such_module"),
        ("optax", "module:attribute"),
        ("", "module:attribute"),
        (":x", "module:attribute"),
        (".a:b", "module:attribute"),
        ("my-module:make", "module:attribute"),
        ("optax:adamw ", "module:attribute"),
        ("math:pi", "float, not a callable"),
    ],
)
def test_a_factory_that_cannot_be_imported_is_a_config_error_that_says_why(path, part):
    with pytest.raises(ConfigError, match=part):
        spec(path)


def test_a_factory_whose_own_module_fails_is_a_config_error(tmp_path, monkeypatch):
    write(tmp_path, "broken_plugin.py", "x = undefined_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="undefined_name"):
        spec("broken_plugin:make")


def test_spec_of_a_callable_writes_its_import_path_and_refuses_what_has_none():
    assert spec(make, width=1) == spec("test_config:make", width=1)
    assert build(spec(gather)) == ()
    with pytest.raises(ConfigError):
        spec(lambda width=1: width)


def test_spec_refuses_a_value_that_json_cannot_hold():
    with pytest.raises(ConfigError, match="test_config:make: width"):
        spec("test_config:make", width=object())


@pytest.mark.parametrize(
    ("field", "kind"), [("rate", float), ("seed", int), ("name", str), ("sizes", tuple), ("anything", object)]
)
def test_an_optional_parameter_becomes_a_placeholder_of_its_annotated_type(field, kind):
    assert spec(make)[field] is None
    assert spec(make).get_type(field) is kind


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_the_older_spelling_of_an_optional_is_read_as_well(tmp_path, monkeypatch, future):
    name = f"older_{bool(future)}"
    text = f"{future}from typing import Optional\ndef make(seed: Optional[int] = None): return seed\n"
    write(tmp_path, f"{name}.py", text)
    monkeypatch.syspath_prepend(tmp_path)
    assert spec(f"{name}:make").get_type("seed") is int


def test_an_annotation_that_cannot_be_resolved_still_leaves_a_field_that_a_flag_can_set():
    assert override(ConfigDict({"node": spec(half_typed)}), {"node.rate": "0.5"}).node.rate == 0.5


def test_an_int_given_for_a_float_parameter_is_a_float_so_that_a_flag_may_set_a_fraction():
    config = ConfigDict({"node": spec(wrap, factor=1)})
    assert type(config.node.factor) is float
    assert override(config, {"node.factor": "0.25"}).node.factor == 0.25


def test_children_are_built_before_the_node_that_holds_them_and_context_reaches_every_depth():
    CALLS.clear()
    built = build(spec(wrap, inner=spec(make)), width=8, total_steps=100)
    assert CALLS == ["make", "wrap"]
    assert (built["inner"]["width"], built["total_steps"]) == (8, 100)


def test_context_fills_only_what_has_no_default_and_never_what_the_config_says():
    built = build(spec(make, width=3), width=8, depth=99, scale=7.0)
    assert (built["width"], built["depth"], built["scale"]) == (3, 2, 1.0)


def test_a_parameter_that_nobody_gives_is_named_by_its_whole_path():
    config = ConfigDict({"parts": (spec(gather), spec(wrap, inner=spec(make, width=1)))})
    with pytest.raises(ConfigError, match=r"config\.parts\[1\]\.total_steps: test_config:wrap needs it.*\(seed\)"):
        build(config, seed=1)


def test_build_refuses_a_keyword_that_was_added_behind_specs_back():
    node = spec(make, width=1)
    node.deptj = 3
    with pytest.raises(ConfigError, match=r"model\.deptj.*did you mean 'depth'"):
        build(node, path="model")


def test_tuples_of_nodes_are_built_in_order_and_plain_values_pass_through():
    assert build((spec(gather, parts=(1, 2)), spec(gather, parts=("a",)), 3)) == ((1, 2), ("a",), 3)
    assert build(ConfigDict({"a": 1, "b": spec(gather)})) == {"a": 1, "b": ()}


def test_load_returns_the_default_or_the_named_preset_and_names_the_nearest_of_a_wrong_one(tmp_path):
    path = write(
        tmp_path,
        "few.py",
        HEADER + "def get_config():\n return ConfigDict({'a': 1})\n"
        "def lstm():\n return ConfigDict({'a': 2})\ndef _private(): return 1\ndef needs(x): return x\n",
    )
    assert load(path).a == 1
    assert load(f"{path}:lstm").a == 2
    assert presets(path) == ["get_config", "lstm"]
    with pytest.raises(ConfigError, match=r"no preset 'lsmt'; did you mean 'lstm'"):
        load(f"{path}:lsmt")


def test_a_missing_config_file_is_reported_with_the_nearest_file(tmp_path):
    write(tmp_path, "cifar10.py", "")
    with pytest.raises(ConfigError, match=r"does not exist; did you mean '.*cifar10\.py'"):
        load(tmp_path / "cifar_10.py")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("def get_config(:\n", "SyntaxError"),
        ("import no_such_module\n", "no_such_module"),
        ("1 / 0\n", "ZeroDivision"),
        ("def get_config():\n return ConfigDict({}).missing\n", "missing"),
        ("def get_config():\n return {'a': 1}\n", "returned dict, expected a ConfigDict"),
        ("def get_config():\n return ConfigDict({'m': {'dtype': object()}})\n", r"config\.m\.dtype"),
        ("def get_config():\n return spec('optax:adamw', lr=1)\n", "takes no keyword 'lr'"),
    ],
)
def test_a_config_file_that_fails_is_a_config_error_with_the_file_and_the_cause(tmp_path, body, part):
    path = write(tmp_path, "failing.py", HEADER + body)
    with pytest.raises(ConfigError, match=part) as caught:
        load(path)
    assert part.startswith("config") or "failing.py" in str(caught.value)


def test_a_config_file_may_name_factories_in_itself_and_in_a_file_beside_it(tmp_path):
    write(tmp_path, "beside_it.py", "def double(x: int = 2): return 2 * x\n")
    path = write(
        tmp_path,
        "with_plugins.py",
        HEADER + "def triple(x: int = 2): return 3 * x\n\n"
        "def get_config():\n    return ConfigDict({'a': spec(triple), 'b': spec('beside_it:double', x=5)})\n",
    )
    assert build(load(path)) == {"a": 6, "b": 10}


def test_a_config_file_may_import_another_and_both_load_in_either_order(tmp_path):
    base = write(tmp_path, "base_conf.py", HEADER + "def get_config():\n return ConfigDict({'a': 1})\n")
    derived = write(
        tmp_path,
        "derived_conf.py",
        "import base_conf\n\ndef get_config():\n config = base_conf.get_config()\n config.a = 2\n return config\n",
    )
    assert (load(derived).a, load(base).a, load(derived).a) == (2, 1, 2)


def test_a_config_file_named_like_an_imported_module_is_refused_instead_of_replacing_it(tmp_path):
    with pytest.raises(ConfigError, match="rename the file"):
        load(write(tmp_path, "json.py", HEADER))
    assert sys.modules["json"] is json


def test_json_round_trips_are_exact_both_ways():
    config = ConfigDict(
        {
            "a": spec(wrap, inner=spec(make, sizes=(1, 2))),
            "parts": (spec(make), spec(gather)),
            "words": ("x", "y"),
            "empty": (),
            "rate": 1e-7,
            "big": 2**70,
            "whole": 1.0,
            "yes": True,
        }
    )
    text = to_json(config)
    again = from_json(text)
    assert to_json(again) == text
    assert flatten(again) == flatten(config)
    assert [type(v) for v in flatten(again).values()] == [type(v) for v in flatten(config).values()]
    assert diff(config, again) == {}


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_json_file_that_is_no_config_is_a_config_error(tmp_path, text):
    with pytest.raises(ConfigError, match=r"other\.json"):
        load(write(tmp_path, "other.json", text))


def test_diff_names_each_path_that_differs_inside_tuples_too_and_nothing_else():
    old = ConfigDict({"parts": (spec(make, depth=1), spec(gather)), "steps": 3, "gone": 1})
    new = ConfigDict({"parts": (spec(make, depth=4), spec(gather)), "steps": 3, "come": 2})
    assert diff(old, new) == {"parts[0].depth": (1, 4), "gone": (1, None), "come": (None, 2)}


def test_a_loaded_config_is_locked_shares_nothing_and_holds_no_lists(tmp_path):
    path = write(
        tmp_path,
        "shared.py",
        HEADER + "def get_config():\n one = spec('test_config:make')\n"
        " return ConfigDict({'train': (one,), 'valid': (one,), 'm': {'sizes': [1, 2]}})\n",
    )
    config = load(path)
    with pytest.raises((KeyError, AttributeError)):
        config.m.size = 3
    assert config.m.sizes == (1, 2)
    changed = override(config, {"train[0].depth": "9"})
    assert (changed.train[0].depth, changed.valid[0].depth) == (9, 2)


def of_names(names: tuple[str, ...] = ()) -> tuple[str, ...]:
    return names


def test_a_lone_text_is_no_tuple_of_texts():
    with pytest.raises(ConfigError, match=r"names='image': expected a tuple, such as \('image',\)"):
        spec(of_names, names="image")
