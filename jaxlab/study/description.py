"""What a study asks: a base config, arms, seeds, what is measured, and what others have published.

A study file has a function ``get_study()`` that returns a `Study`; `plan` turns it into runs. Reads no data and no run.
Usage: ``study = load("experiments/digits_ablation/study.py")``, then ``plan(study)``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxlab.core import config as configs
from jaxlab.core.config_file import functions_of
from jaxlab.core.errors import ConfigError, JaxlabError, UsageError, did_you_mean
from jaxlab.core.override import override
from jaxlab.study.grid import Arm
from jaxlab.study.search import Search

DIRECTIONS = ("max", "min")
STEPS = ("best", "latest")
SPLITS = ("train", "valid", "test")


class Published(NamedTuple):
    """A number of somebody else's to stand beside ours, with the interval they give, if any, and where it stands."""

    name: str
    value: float
    citation: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Study:
    """A question that runs can answer.

    Fields:
      base: the config that arms change.
      arms: what each of them changes; see `jaxlab.study.grid`.
      seeds: each arm is trained with each; they decide initial weights and the order of data, equally in all arms.
      metric: ``SPLIT/NAME``, the one number that decides. Of ``train`` and ``valid`` it is read from the run's rows,
        of ``test`` from an evaluation.
      direction: max or min, whichever is better.
      baseline: the arm that others are compared with, as a dict of `arms`; the first one if None.
      at: best or latest, the checkpoint of a run that counts.
      evaluate: splits on which every run is evaluated, with curves and per-example predictions; ``test`` is added if
        the metric is of it.
      smallest: the least difference worth knowing of; says how many seeds it would take.
      published: to stand beside ours.
      retries: how often a run that failed or was killed is tried again; one that diverged is not.
      search: proposes further arms after these; see `jaxlab.study.search`.
      stopped: by an arm's key, how many seeds it had when the search gave it up; the search fills this in.
    """

    base: ConfigDict
    arms: Sequence[Arm]
    seeds: Sequence[int]
    metric: str
    direction: str = "max"
    baseline: Arm | None = None
    at: str = "best"
    evaluate: Sequence[str] = ()
    smallest: float | None = None
    published: Sequence[Published] = field(default=())
    retries: int = 1
    search: Search | None = None
    stopped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked without building anything."""
        split = self.metric.partition("/")[0]
        _check_word("metric", split, SPLITS, self.metric)
        _check_word("direction", self.direction, DIRECTIONS)
        _check_word("at", self.at, STEPS)
        for name in self.evaluate:
            _check_word("evaluate", name, SPLITS)
        if not self.arms:
            raise UsageError("study.arms is empty; expected at least [{}], the base itself")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise UsageError(f"study.seeds={tuple(self.seeds)}: expected different whole numbers, one at least")
        if self.baseline is not None and self.baseline not in self.arms:
            raise UsageError(f"study.baseline={self.baseline!r} is none of study.arms")
        if self.retries < 0:
            raise UsageError(f"study.retries={self.retries}: expected 0 or more")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits on which every run is evaluated."""
        return tuple(dict.fromkeys([*self.evaluate, *(["test"] if self.metric.startswith("test/") else [])]))


class PlannedArm(NamedTuple):
    """An arm with its complete config, but for the seed; its key is a digest of that config, and names its folder."""

    key: str
    label: str
    changes: dict[str, Any]
    config: ConfigDict
    is_baseline: bool
    seeds: tuple[int, ...]


def load(source: str | Path) -> Study:
    """Return the study that a file describes: ``FILE.py`` (its ``get_study()``) or ``FILE.py:NAME``.

    Raises:
      ConfigError: no such file or function, or it fails, or it returns something else.
    """
    text, path = str(source), file_of(source)
    file, name = str(path), text.removeprefix(f"{path}:") if text != str(path) else "get_study"
    if not path.is_file():
        siblings = [str(p) for p in path.parent.parent.glob("*/study.py")] if path.parent.parent.is_dir() else []
        raise ConfigError(f"--study={text}: there is no such file{did_you_mean(file, siblings)}")
    functions = functions_of(path)
    if name not in functions:
        raise ConfigError(f"{file}: no function {name!r}{did_you_mean(name, functions)}")
    try:
        study = functions[name]()
    except JaxlabError as error:
        raise type(error)(f"{text}: {error}") from error
    except Exception as error:
        raise ConfigError(f"{text}: {name}() fails with {type(error).__name__}: {error}") from error
    if not isinstance(study, Study):
        raise ConfigError(f"{text}: {name}() returned {type(study).__name__}, expected a jaxlab.Study")
    return study


def file_of(source: str | Path) -> Path:
    """Return the file of ``FILE.py`` or ``FILE.py:NAME``."""
    named = re.fullmatch(r"(.+\.py):[^/]*", str(source))
    return Path(named.group(1) if named else str(source))


def plan(study: Study) -> list[PlannedArm]:
    """Return the arms with their configs, in order.

    Raises:
      ConfigError: an arm sets a path that is not there, or a value of another type.
      UsageError: two arms come to the same config, or one sets the seed.
    """
    baseline = study.arms[0] if study.baseline is None else study.baseline
    planned: list[PlannedArm] = []
    for arm in study.arms:
        if "seed" in arm:
            raise UsageError(f"study.arms: {dict(arm)!r} sets the seed; expected that in study.seeds alone")
        try:
            config = override(study.base, arm)
        except ConfigError as error:
            raise ConfigError(f"study.arms: {error}") from error
        changes = {path: new for path, (_, new) in configs.diff(study.base, config).items()}
        key = digest(config)
        for other in planned:
            if other.key == key:
                raise UsageError(f"study.arms: {dict(arm)!r} comes to the same config as {other.label!r}")
        seeds = tuple(study.seeds)[: study.stopped[key]] if key in study.stopped else tuple(study.seeds)
        planned.append(PlannedArm(key, label(arm), changes, config, arm == baseline, seeds))
    return planned


def digest(config: ConfigDict) -> str:
    """Return what tells an arm's config from others, whatever its seed."""
    return hashlib.sha256(configs.to_json(seeded(config, 0)).encode()).hexdigest()[:8]


def seeded(config: ConfigDict, seed: int) -> ConfigDict:
    """Return the config with a seed."""
    return override(config, {"seed": seed})


def label(arm: Arm) -> str:
    """Return how an arm is called in tables: what it changes, or "base"."""
    return ", ".join(f"{_short_path(path)}={_short(value)}" for path, value in arm.items()) or "base"


def as_json(value: Any) -> Any:
    """Return an arm's value as JSON holds it."""
    if isinstance(value, ConfigDict):
        return json.loads(configs.to_json(value))
    return [as_json(item) for item in value] if isinstance(value, tuple | list) else value


def _short_path(path: str) -> str:
    parts = path.split(".")
    return ".".join(parts[1:]) if parts[0] in ("model", "optimizer", "train", "data") and len(parts) > 1 else path


def _short(value: Any) -> str:
    if isinstance(value, ConfigDict):
        return str(value[configs.FACTORY]).rpartition(".")[2] if configs.FACTORY in value else "{…}"
    if isinstance(value, tuple | list):
        return "×".join(map(_short, value)) if value else "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _check_word(what: str, word: str, words: Sequence[str], whole: str = "") -> None:
    if word not in words:
        raise UsageError(f"study.{what}={whole or word!r}{did_you_mean(word, words)}")
