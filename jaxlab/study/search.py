"""A search for the best arm: Optuna proposes values, each proposal is an arm over the study's seeds.

Hopeless arms are given up (`jaxlab.study.pruning`). Proposals and their values stand in ``search.sqlite``, so that a
search that is killed goes on.
Usage: ``Study(..., search=Search({"optimizer.learning_rate": LogUniform(1e-4, 1e-1)}, trials=30))``.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxlab.core.errors import UsageError, did_you_mean
from jaxlab.study.grid import Choice, Distribution, Integers, LogUniform, Uniform

if TYPE_CHECKING:
    import optuna

STORAGE = "search.sqlite"
SAMPLERS = ("tpe", "random")
_VALUES = "values"

_log = logging.getLogger("jaxlab")


@dataclasses.dataclass(frozen=True)
class Search:
    """What is searched.

    Fields:
      space: a distribution by config path; `Choice` is of plain values.
      trials: arms that are proposed, the ones that are stopped early included.
      sampler: tpe (Bergstra et al. 2011, as Optuna has it) or random.
      start: random arms before TPE begins.
      seed: of the sampler.
      prune: whether hopeless arms are given up; see `jaxlab.study.pruning`.
    """

    space: Mapping[str, Distribution]
    trials: int
    sampler: str = "tpe"
    start: int = 10
    seed: int = 0
    prune: bool = True

    def __post_init__(self) -> None:
        """Check what can be checked alone."""
        if self.sampler not in SAMPLERS:
            raise UsageError(f"search.sampler={self.sampler!r}{did_you_mean(self.sampler, SAMPLERS)}")
        if not self.space or self.trials < 1:
            raise UsageError(f"search: {len(self.space)} paths and {self.trials} trials; expected one at least of each")


class Tried(NamedTuple):
    """The values of an arm's finished runs by seed, whether it was given up, and where a run given up was heading."""

    values: Sequence[float]
    pruned: bool = False
    projected: float | None = None


Values = Callable[[Mapping[str, Any], Sequence[Sequence[float]]], Tried]
"""Runs an arm's seeds in order until all are done or it is hopeless, beside the values of the arms before."""


class Found(NamedTuple):
    """An arm that was proposed, and its values by seed: fewer than there are seeds where it was given up."""

    arm: dict[str, Any]
    values: Sequence[float]


def search(wanted: Search, direction: str, folder: Path, values: Values) -> list[Found]:
    """Run what is missing of a search and return its arms in order.

    Args:
      wanted: the search.
      direction: max or min.
      folder: of the study.
      values: runs an arm.
    """
    study = _open(direction, folder)
    _propose_again(study)
    while len(done := [trial for trial in study.trials if _VALUES in trial.user_attrs]) < wanted.trials:
        others = [trial.user_attrs[_VALUES] for trial in done]
        study.sampler = _sampler(wanted, len(done))
        trial = study.ask(_distributions(wanted.space))
        _tell(study, trial, values(dict(trial.params), others))
    return [Found(dict(trial.params), trial.user_attrs[_VALUES]) for trial in done]


def _propose_again(study: optuna.Study) -> None:
    """Have the arms of a search that was killed proposed again first; their finished runs stand as they are."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _open(direction: str, folder: Path) -> optuna.Study:
    try:
        import optuna
    except ImportError as error:
        raise UsageError("a search needs Optuna: pip install 'jaxlab[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=f"sqlite:///{folder / STORAGE}",
        study_name="search",
        direction="maximize" if direction == "max" else "minimize",
        load_if_exists=True,
    )


def _sampler(wanted: Search, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler for an arm by its number, so that a search goes on as if it had not been killed."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence((wanted.seed, number)).generate_state(1)[0])
    return TPESampler(seed=seed, n_startup_trials=wanted.start) if wanted.sampler == "tpe" else RandomSampler(seed=seed)


def _tell(study: optuna.Study, trial: optuna.Trial, tried: Tried) -> None:
    """Write what came of an arm: the mean after each seed, and whether it was given up."""
    from optuna.trial import TrialState

    trial.set_user_attr(_VALUES, list(tried.values))
    found = [*tried.values, *([] if tried.projected is None else [tried.projected])]
    for count in range(1, len(found) + 1):
        trial.report(float(np.mean(found[:count])), count)
    if not found or not np.all(np.isfinite(found)):
        study.tell(trial, state=TrialState.FAIL)
    elif tried.pruned:
        study.tell(trial, state=TrialState.PRUNED)  # TPE takes its last report
    else:
        study.tell(trial, float(np.mean(found)))


def _distributions(space: Mapping[str, Distribution]) -> dict[str, Any]:
    import optuna.distributions as theirs

    found: dict[str, Any] = {}
    for path, where in space.items():
        match where:
            case Uniform(low, high):
                found[path] = theirs.FloatDistribution(low, high)
            case LogUniform(low, high):
                found[path] = theirs.FloatDistribution(low, high, log=True)
            case Integers(low, high):
                found[path] = theirs.IntDistribution(low, high)
            case Choice(values):
                found[path] = theirs.CategoricalDistribution(list(values))
            case _:
                names = ("Uniform", "LogUniform", "Integers", "Choice")
                raise UsageError(f"search.space[{path!r}]={where!r}{did_you_mean(type(where).__name__, names)}")
    return found
