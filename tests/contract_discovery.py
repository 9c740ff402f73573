"""The factories that jaxlab ships, found by the type that they say they return, and how the tests build them."""

import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import optax
import pytest
from contract_cases import (
    CASES,
    CLASSIFIED,
    EXTRAS,
    IMAGES,
    INITIALISED,
    JUDGED,
    MEASURED,
    PICTURES,
    SAMPLES,
    SIZE,
    TRAINED,
    Begun,
    Judged,
    Trained,
)  # fmt: skip
from contract_tables import TABLES, Tried
from flax import linen as nn
from ml_collections import ConfigDict

from jaxlab.core import config as configs
from jaxlab.core import types as contracts
from jaxlab.data.pipeline import Batches

LEAVES = ("data", "models", "objectives", "metrics", "optim", "track")
KINDS = [
    (contracts.Transform, "transform"), (contracts.Fittable, "fittable"), (contracts.DeviceTransform, "device"),
    (contracts.Sampling, "sampling"), (contracts.Source, "source"), (contracts.Objective, "objective"),
    (contracts.Metric, "metric"), (contracts.TableMetric, "table_metric"),
    (contracts.Initialiser, "initialiser"), (optax.Schedule, "schedule"), (contracts.Periodic, "hook"),
    (Callable[[contracts.PyTree], contracts.PyTree], "mask"), (optax.GradientTransformation, "optimizer"),
]  # fmt: skip
HALVES = (slice(0, SIZE // 2), slice(SIZE // 2, SIZE))


class Case(NamedTuple):
    """A factory, the contract of what it makes, and one set of arguments to try it with."""

    path: str
    kind: str
    arguments: dict[str, Any]

    def _of(self, table: dict[str, Any], default: Any) -> Any:
        return table.get(self.path, table.get(self.path.partition(":")[0], default))

    @property
    def sample(self) -> contracts.Source:
        return self._of(SAMPLES, IMAGES)

    @property
    def trained(self) -> Trained:
        return self._of(TRAINED, CLASSIFIED)

    @property
    def judged(self) -> Judged:
        judged = self._of(JUDGED, None)
        assert judged is not None, f"{self.path} needs a line in contract_cases.JUDGED"
        return judged

    @property
    def begun(self) -> Begun:
        begun = self._of(INITIALISED, None)
        assert begun is not None, f"{self.path} needs a line in contract_cases.INITIALISED"
        return begun

    @property
    def measured(self) -> tuple[ConfigDict, Judged]:
        """The objective whose results a metric measures, and with what that is tried."""
        objective = self._of(MEASURED, None)
        assert objective is not None, f"{self.path} needs a line in contract_cases.MEASURED"
        return objective, Case(objective.factory, "objective", {}).judged

    @property
    def tabled(self) -> tuple[Tried, ...]:
        """The tables with which a table metric is tried."""
        tables = self._of(TABLES, None)
        assert tables, f"{self.path} needs a line in contract_tables.TABLES"
        return tables


def returned(function: Callable[..., Any]) -> Any:
    """Return the type that a function says it returns; None for what is imported for type checkers alone."""
    alone = types.FunctionType(function.__code__, function.__globals__)
    try:
        alone.__annotations__ = {name: x for name, x in function.__annotations__.items() if name == "return"}
        return inspect.get_annotations(alone, eval_str=True).get("return")
    except NameError as error:
        if error.name in {*vars(contracts), "optax", "nn"}:  # what a contract is written with
            where = f"{function.__module__}:{function.__qualname__}"
            raise TypeError(f"{where} may return a contract: import {error.name} also at run time") from error
        return None  # a type of a library that is imported late


def kind_of(annotation: Any) -> str | None:
    """Return which contract a return annotation names."""
    for contract, kind in KINDS:
        if annotation is contract or annotation == contract:
            return kind
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if not all(isinstance(member, type) for member in members):
        return None
    if all(issubclass(member, nn.Module) for member in members):
        return "model"
    if all(hasattr(member, "__getitems__") and hasattr(member, "spec") for member in members):
        return "source"
    return "sink" if all(hasattr(member, "write") and hasattr(member, "close") for member in members) else None


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the functions that the leaves' modules define, by path."""
    for leaf in LEAVES:
        package = importlib.import_module(f"jaxlab.{leaf}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, function in inspect.getmembers(importlib.import_module(info.name), inspect.isfunction):
                if function.__module__ == info.name and not name.startswith("_"):
                    yield f"{info.name}:{name}", function


def discover() -> list[Case]:
    """Return the factories whose return annotation is a contract's type, with each of their sets of arguments."""
    found = [(path, kind_of(returned(function))) for path, function in public_functions()]
    return [Case(path, kind, arguments) for path, kind in found if kind for arguments in CASES.get(path, ({},))]


FOUND = discover()


def each(*kinds):
    cases = [case for case in FOUND if not kinds or case.kind in kinds]
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.path.removeprefix("jaxlab."))


def node_of(case):
    if case.path in EXTRAS:
        pytest.importorskip(EXTRAS[case.path])
    return configs.spec(case.path, **case.arguments)


def make(case, data=PICTURES.spec, **context):
    """Build the factory as a resumed run does: from the JSON of a spec with all defaults, and the context."""
    node = configs.from_json(configs.to_json(node_of(case)))
    return configs.build(node, data=data, total_steps=50, batch_axis=None, **context)


def make_trained(case, batch_axis=None):
    """Return the model and the objective that calls it."""
    data = case.trained.source.spec
    model = configs.build(node_of(case), data=data, batch_axis=batch_axis)
    return model, configs.build(case.trained.objective, data=data)


def make_batch(rows=slice(None), source=PICTURES) -> contracts.HostBatch:
    """Return all rows of `source`, of which the sixth is padding, or some of them."""
    batch = Batches(source, (), SIZE, 0, training=False)[0]
    mask = np.ones(SIZE, np.float32)
    mask[5] = 0
    return {name: value[rows] for name, value in {**batch, "mask": mask}.items()}
