"""jaxlab: a JAX research framework. Importing it imports nothing else; names load what they need when first used.

Usage: ``run = jaxlab.train(jaxlab.load_config("configs/digits_cnn.py"), "runs/first")``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlab.core.config import build, spec
    from jaxlab.core.config import load as load_config
    from jaxlab.core.override import override
    from jaxlab.core.trust import allow
    from jaxlab.data.arrays import ArraySource
    from jaxlab.run.autopsy import autopsy
    from jaxlab.run.base import base_config
    from jaxlab.run.baseline import baseline
    from jaxlab.run.check import check
    from jaxlab.run.compare import compare
    from jaxlab.run.cross_validate import cross_validate
    from jaxlab.run.doctor import doctor
    from jaxlab.run.evaluate import evaluate
    from jaxlab.run.find_rate import find_rate
    from jaxlab.run.mirrored import mirrored
    from jaxlab.run.reproduce import reproduce
    from jaxlab.run.result import Run
    from jaxlab.run.sanity import sanity
    from jaxlab.run.verify_resume import verify_resume
    from jaxlab.study.description import Published, Study
    from jaxlab.study.index import table as runs
    from jaxlab.study.report import report
    from jaxlab.study.runner import run_study

__version__ = "0.1.0"
__all__ = [
    "ArraySource", "Published", "Run", "Study", "allow", "autopsy", "base_config", "baseline", "build", "check",
    "compare", "cross_validate", "doctor", "evaluate", "find_rate", "load_config", "mirrored", "override", "report",
    "reproduce", "run_study", "runs", "sanity", "spec", "train", "verify_resume",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name == "train":
        return importlib.import_module("jaxlab.train")
    homes = {
        "ArraySource": "data.arrays:ArraySource", "Published": "study.description:Published",
        "Run": "run.result:Run", "Study": "study.description:Study", "allow": "core.trust:allow",
        "autopsy": "run.autopsy:autopsy", "base_config": "run.base:base_config", "baseline": "run.baseline:baseline",
        "build": "core.config:build", "check": "run.check:check", "compare": "run.compare:compare",
        "cross_validate": "run.cross_validate:cross_validate", "doctor": "run.doctor:doctor",
        "evaluate": "run.evaluate:evaluate", "find_rate": "run.find_rate:find_rate",
        "load_config": "core.config:load", "mirrored": "run.mirrored:mirrored", "override": "core.override:override",
        "report": "study.report:report", "reproduce": "run.reproduce:reproduce", "run_study": "study.runner:run_study",
        "runs": "study.index:table", "sanity": "run.sanity:sanity", "spec": "core.config:spec",
        "verify_resume": "run.verify_resume:verify_resume",
    }  # fmt: skip
    if name not in homes:
        raise AttributeError(f"module 'jaxlab' has no attribute {name!r}")
    module, attribute = homes[name].split(":")
    globals()[name] = value = getattr(importlib.import_module(f"jaxlab.{module}"), attribute)
    return value


class _TrainPackage(ModuleType):
    """The package ``jaxlab.train``, which is also the function of that name."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Run:
        return importlib.import_module("jaxlab.run.train").train(*arguments, **keywords)


class _Face(ModuleType):
    """This module; it notices when the import system puts the package ``train`` into it, and makes that callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "train" and isinstance(value, ModuleType):
            value.__class__ = _TrainPackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
