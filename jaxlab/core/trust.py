"""Whose code a config may name.

A config file is the user's own program. A run directory, or a bundle, may be anybody's: it is data, and what it names
is imported only if it is a factory of jaxlab, flax, optax or jax, or of a package that the user allows by name. Knows
no command. Usage: ``check_imports(config, "runs/x/config.json")``, before any of it is built.
"""

from __future__ import annotations

import functools
import importlib.machinery
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxlab.core.errors import ConfigError, UsageError
from jaxlab.core.factory import IMPORTED, REFUSED, is_import_path, resolve

VARIABLE = "JAXLAB_ALLOW"
"""The environment variable with the packages that are allowed, with commas between; child processes inherit it."""

TRUSTED: Mapping[str, tuple[str, ...]] = {
    "jaxlab": tuple(f"jaxlab.{x}" for x in ("data", "models", "objectives", "metrics", "optim", "compress", "track")),
    "flax": ("flax.linen",),
    "optax": ("optax",),
    "jax": ("jax.nn",),
}
"""Packages whose factories anybody's config may name, and the modules in which those stand. The rest of these packages
needs allowing too, as it can do anything: ``jax.numpy.load`` unpickles, ``flax.io.rmtree`` deletes."""

BUILDERS = "jaxlab.data.builders."  # of data sets, which a config names by a string that is no factory


def allow(*packages: str) -> None:
    """Allow configs of run directories to name code of `packages`, in this process and those that it starts."""
    for name in packages:
        if not name.isidentifier():
            raise UsageError(f"--allow={name!r}: expected names of packages with commas between, as my_models,other")
    os.environ[VARIABLE] = ",".join(dict.fromkeys([*allowed(), *packages]))
    for path in [path for path in REFUSED if _top(path) in packages]:
        del REFUSED[path]


def allowed() -> tuple[str, ...]:
    """Return the packages that are allowed."""
    names = (name.strip() for name in os.environ.get(VARIABLE, "").split(","))
    return tuple(name for name in names if name)


def distrust(config: ConfigDict) -> None:
    """Refuse, from now on, names in a config that was read from a file and that are of no package to be trusted.

    So they stay refused where the config is built by other ways than after `check_imports`.
    """
    for path, text, is_factory in import_paths(config):
        if text not in IMPORTED and not _may_be_tried(text, is_factory):
            REFUSED[text] = _reason(path, text, (_top(text),), "a file", "")


def check_imports(config: ConfigDict, source: str | Path, folder: str = "") -> tuple[str, ...]:
    """Check that what `config` names may be imported, before anything is.

    What this process has imported by the very same name, as when it trained the run, is allowed.

    Args:
      config: that someone else may have written.
      source: the file that it was read from, for the error.
      folder: where the run's own config stood, in which packages are looked for last.

    Returns:
      The packages in use that are not of `TRUSTED`.

    Raises:
      UsageError: names the field, the package, where its code is and the flag that allows it.
      ConfigError: a factory that there is not.
    """
    named = [(path, text, is_factory) for path, text, is_factory in import_paths(config) if text not in IMPORTED]
    open_ones = [(path, text) for path, text, is_factory in named if not _may_be_tried(text, is_factory)]
    _refuse(open_ones, source, folder)
    tried = [(path, text) for path, text, is_factory in named if is_factory and _top(text) not in allowed()]
    _refuse([(path, text) for path, text in tried if not _is_factory(resolve(text, path))], source, folder)
    for _, text, _ in named:
        REFUSED.pop(text, None)
    return packages_of(config)


def packages_of(config: ConfigDict) -> tuple[str, ...]:
    """Return the packages that a config names and that anybody's may not, for whoever hands on a config of its own."""
    named = ((_top(text), text, is_factory) for _, text, is_factory in import_paths(config))
    found = (top for top, text, is_factory in named if top not in TRUSTED or not _may_be_tried(text, is_factory))
    return tuple(dict.fromkeys(found))


def import_paths(node: Any, path: str = "config") -> Iterator[tuple[str, str, bool]]:
    """Yield the path of each value that names code, the name, and whether it is a node's factory.

    Raises:
      ConfigError: a factory that is not of the form ``module:attribute``.
    """
    if isinstance(node, ConfigDict):
        for name in node:
            value, where = node[name], f"{path}.{name}"
            if name != "factory":
                yield from import_paths(value, where)
            elif not isinstance(value, str) or not is_import_path(value):
                raise ConfigError(f"{where}: {value!r} is not of the form 'module:attribute'")
            else:
                yield where, value, True
    elif isinstance(node, tuple | list):
        for i, child in enumerate(node):
            yield from import_paths(child, f"{path}[{i}]")
    elif isinstance(node, str) and is_import_path(node):
        yield path, node, False


def _top(text: str) -> str:
    return text.partition(":")[0].partition(".")[0]


def _may_be_tried(text: str, is_factory: bool) -> bool:
    """Say whether a name is of an allowed package, or looks like a factory of a trusted one, which is seen later."""
    module, _, attribute = text.partition(":")
    if _top(text) in allowed():
        return True
    if not is_factory:
        return module.startswith(BUILDERS)
    hidden = any(part.startswith("_") for part in (*module.split("."), attribute))
    homes = TRUSTED.get(_top(text), ())
    return not hidden and "." not in attribute and _within(module, homes) and not _within(module, _NOT_HOMES)


_NOT_HOMES = ("jaxlab.data.builders", "jaxlab.data.preparation")  # they fetch and write; no config names them


def _within(module: str, homes: Sequence[str]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in homes)


def _is_factory(found: Callable[..., Any]) -> bool:
    """Say whether a callable of a trusted package is its own, and of jaxlab's own one that makes what configs name."""
    found = found.func if isinstance(found, functools.partial) else found
    module = getattr(found, "__module__", None)
    if not isinstance(module, str) or module.partition(".")[0] not in TRUSTED:
        return False
    if not module.startswith("jaxlab."):
        return True
    if _within(module, _NOT_HOMES) or not _within(module, TRUSTED["jaxlab"]):
        return False
    return makes_a_contract(found)


def makes_a_contract(found: Callable[..., Any]) -> bool:
    """Say whether a function says that it returns a contract of `jaxlab.core.types`, or is a class of models."""
    import optax
    from flax import linen as nn

    from jaxlab.core import types as contracts

    if isinstance(found, type):
        return issubclass(found, nn.Module)
    function = inspect.unwrap(found)
    if not isinstance(function, types.FunctionType):
        return False
    alone = types.FunctionType(function.__code__, function.__globals__)
    alone.__annotations__ = {"return": function.__annotations__.get("return")}
    try:
        returned = inspect.get_annotations(alone, eval_str=True)["return"]
    except NameError:  # a type that is imported for type checkers only
        return False
    known = (
        contracts.Source, contracts.Transform, contracts.DeviceTransform, contracts.Sampling, contracts.Fittable,
        contracts.Initialiser, contracts.Objective, contracts.Metric, contracts.TableMetric, contracts.Generate,
        contracts.Periodic, contracts.Sink, Callable[[contracts.PyTree], contracts.PyTree], optax.Schedule,
        optax.GradientTransformation, optax.GradientTransformationExtraArgs,
    )  # fmt: skip
    if any(returned is contract or returned == contract for contract in known):
        return True
    members = typing.get_args(returned) if isinstance(returned, types.UnionType) else (returned,)
    return bool(members) and all(isinstance(member, type) and _is_contract(member, nn.Module) for member in members)


def _is_contract(member: type, model: type) -> bool:
    methods = (("__getitems__", "spec"), ("write", "close"))  # of a source, of a sink
    return issubclass(member, model) or any(all(hasattr(member, name) for name in each) for each in methods)


def _refuse(named: Sequence[tuple[str, str]], source: str | Path, folder: str) -> None:
    if named:
        packages = tuple(dict.fromkeys(_top(text) for _, text in named))
        raise UsageError(_reason(*named[0], packages, source, folder))


def _reason(path: str, text: str, packages: Sequence[str], source: str | Path, folder: str) -> str:
    kind = "which is no factory that anybody's run may name"
    if _top(text) not in TRUSTED:
        kind = code_of(_top(text), folder)
    names = ",".join(packages)
    return (
        f"{path}={text!r} in {source}: a run may be anybody's, and this would run code of the package {_top(text)!r} "
        f"({kind}); if you trust it, add --allow={names} (or set {VARIABLE}={names})"
    )


def code_of(package: str, folder: str = "") -> str:
    """Say where the code of a package would come from, without importing it."""
    for paths in (None, [folder] if folder else []):
        try:
            found = importlib.machinery.PathFinder.find_spec(package, paths)
        except (ImportError, ValueError):
            found = None
        if found is not None:
            return str(found.origin or next(iter(found.submodule_search_locations or ()), "somewhere"))
    return "of Python itself" if package in sys.stdlib_module_names else "which is not installed here"


def make_importable(packages: Sequence[str], folder: str, workdir: Path) -> None:
    """Look for `packages` that are nowhere else in `folder`, where the run's config stood; never within the run."""
    if not folder or not Path(folder).is_dir() or Path(folder).resolve().is_relative_to(workdir.resolve()):
        return
    absent = [name for name in packages if name not in sys.modules and _is_absent(name)]
    if absent and folder not in sys.path:
        sys.path.append(folder)


def _is_absent(package: str) -> bool:
    return package not in sys.stdlib_module_names and importlib.machinery.PathFinder.find_spec(package) is None
