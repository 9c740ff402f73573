"""The ``audit`` command: what is wrong with the data of a config, before any transform and without training.

It writes into its output folder, and changes nothing else:

- ``audit.json``: ``target``; ``splits`` by name, each with ``size``, ``rows`` (looked at), ``target_rows_read``,
  ``duplicates``, ``classes`` (rows a class) or ``target`` (range), and ``fields`` by name: ``kind``, ``missing``
  (rows), and by kind ``columns`` (each with missing, infinite, constant, min, max, mean, std, quantiles; or of a
  category its counts), ``characters`` and ``words``, ``length``, or ``range``; ``overlaps``: left, right, field (null:
  equal rows), rows (of the left) and the most similar ``pairs`` as [left index, right index, similarity]; ``leaks``:
  held-out scores by column; ``filter``: rows that it leaves out, by split and reason; ``findings``: level,
  code, split, field, count, message.
- ``audit.html``: the same to read, with plots and pictures of near duplicates, in one file.
- ``filter.json``: ``{SPLIT: {"drop": [index, ...], "reasons": {reason: [index, ...]}, "size": N}}``, with
  ``base_fingerprint`` where the data has one. Of the test split nothing is dropped.

The target of the test split is for evaluations: it isn't read unless asked for. (Sources are built here and not by
`assemble`, which fits the transforms and so refuses the very data that an audit is for.)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxlab.core import record
from jaxlab.core.errors import UsageError, did_you_mean
from jaxlab.core.paths import folder_of
from jaxlab.core.types import Source
from jaxlab.data.audit.findings import Finding
from jaxlab.data.audit.pairs import Overlap, overlaps
from jaxlab.data.audit.survey import Survey, column, names_of, survey
from jaxlab.data.audit.table import describe, describe_categories
from jaxlab.data.audit.verdict import Drops, Verdict, class_counts, judge, repeats
from jaxlab.run.assemble import check_values
from jaxlab.run.audit_page import page
from jaxlab.run.sources import open_sources

MAX_ROWS = 100_000
_PAIRS = 200  # pairs of an overlap that audit.json lists


def audit(
    config: ConfigDict,
    output: str | os.PathLike[str] = "audit",
    *,
    max_rows: int = MAX_ROWS,
    target: str | None = None,
    ignore: tuple[str, ...] = (),
    test_labels: bool = False,
) -> dict[str, Any]:
    """Look for what is wrong with a config's data; write the report, the page and the filter.

    Args:
      config: complete.
      output: the folder to write into.
      max_rows: of a larger split, so many rows are looked at, drawn at random.
      target: the field to predict; None is the objective's, else ``label`` or ``target``.
      ignore: fields that are no inputs, such as a row's number: equal rows may differ in them.
      test_labels: whether the target of the test split may be read.

    Raises:
      ConfigError, DataError: data that cannot be had.
      UsageError: a flag that names no field of the data, a number of rows below 2, or a file as output.
    """
    if max_rows < 2:
        raise UsageError(f"--max_rows={max_rows}: expected 2 or more")
    folder = folder_of(output)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output={output} is a file; expected a folder")
    check_values(config)
    sources = open_sources(config)
    target = find_target(config, sources["train"], target)
    for name in ignore:
        _check_field("ignore", name, sources["train"])
    surveys: list[Survey] = []
    for split, source in sources.items():
        kinds = surveys[0].kinds if surveys else None
        read = test_labels or split != "test"
        surveys.append(
            survey(source, split, target=target, read_target=read, ignore=ignore, kinds=kinds, max_rows=max_rows)
        )
    shared = overlaps(surveys, sources)
    verdict = judge(surveys, shared, target)
    verdict = verdict._replace(findings=(*verdict.findings, *_notes(surveys, target)))
    report = _report(surveys, shared, verdict, target)
    record.write_json(folder / "audit.json", report)
    record.write_json(folder / "filter.json", _filter(verdict.drops, sources))
    record.write_atomically(folder / "audit.html", page(report, surveys, shared, sources))
    levels = [finding.level for finding in verdict.findings]
    findings = [f"{f.level}: {f.split}: {f.message}" for f in verdict.findings]
    return {
        "output": str(folder), "errors": levels.count("error"), "warnings": levels.count("warning"),
        "findings": findings,
    }  # fmt: skip


def find_target(config: ConfigDict, source: Source, given: str | None = None) -> str | None:
    """Return the field to predict: the one given, the objective's, ``label`` or ``target``; None if there is none.

    Raises:
      UsageError: the data has not the field given.
    """
    if given is not None:
        _check_field("target", given, source)
        return given
    named = config.objective.get("target") if config.get("objective") else None
    return next((name for name in (named, "label", "target") if name in source.spec.example), None)


def _check_field(flag: str, name: str, source: Source) -> None:
    if name not in source.spec.example:
        raise UsageError(f"--{flag}={name}: the data has no such field{did_you_mean(name, source.spec.example)}")


def _notes(surveys: Sequence[Survey], target: str | None) -> list[Finding]:
    if target is None:
        message = "no field to predict was found: classes and leaks were not looked for. Name it by --target."
        return [Finding("note", "no_target", surveys[0].split, None, 0, message)]
    message = f"{target!r} was not read: test labels are for evaluations. --test_labels reads it."
    return [Finding("note", "unread", s.split, target, s.size, message) for s in surveys if s.target is None]


def _report(
    surveys: Sequence[Survey], shared: Sequence[Overlap], verdict: Verdict, target: str | None
) -> dict[str, Any]:
    return {
        "target": target,
        "splits": {survey.split: _split(survey) for survey in surveys},
        "overlaps": [_overlap(overlap) for overlap in shared],
        "leaks": dict(verdict.leaks),
        "filter": {s: {reason: len(rows) for reason, rows in drops.items()} for s, drops in verdict.drops.items()},
        "findings": [finding._asdict() for finding in verdict.findings],
    }


def _split(survey: Survey) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "size": survey.size, "rows": len(survey.rows),
        "target_rows_read": 0 if survey.target is None else len(survey.target), "duplicates": len(repeats(survey)),
    }  # fmt: skip
    classes = class_counts(survey)
    if classes:
        facts["classes"] = classes
    elif survey.target is not None and survey.target.dtype.kind != "O":
        facts["target"] = describe(survey.target.reshape(-1))
    return {**facts, "fields": {name: _field(survey, name) for name in survey.fields}}


def _field(survey: Survey, name: str) -> dict[str, Any]:
    kind, kept = survey.kinds[name], survey.fields[name]
    facts: dict[str, Any] = {"kind": kind, "missing": int((kept["missing"] > 0).sum())}
    columns = {column_name: place for column_name, place in names_of(survey).items() if place[0] == name}
    if columns:
        tell = describe_categories if kind == "category" else describe
        facts["columns"] = {column_name: tell(column(survey, place)) for column_name, place in columns.items()}
    facts |= {part: describe(kept[part]) for part in ("characters", "words", "length") if part in kept}
    if "low" in kept:
        facts["range"] = {
            "min": float(np.nanmin(kept["low"])) if np.isfinite(kept["low"]).any() else None,
            "max": float(np.nanmax(kept["high"])) if np.isfinite(kept["high"]).any() else None,
            "mean": describe(kept["mean"]).get("mean"),
        }  # fmt: skip
    return facts


def _overlap(overlap: Overlap) -> dict[str, Any]:
    best = np.argsort(-overlap.similarity, kind="stable")[:_PAIRS]
    pairs = [[*map(int, overlap.pairs[i]), round(float(overlap.similarity[i]), 4)] for i in best]
    rows = len(np.unique(overlap.pairs[:, 0]))
    return {"left": overlap.left, "right": overlap.right, "field": overlap.field, "rows": rows, "pairs": pairs}


def _filter(drops: Drops, sources: Mapping[str, Source]) -> dict[str, Any]:
    content = {}
    for split, reasons in drops.items():
        every = np.unique(np.concatenate([*reasons.values(), np.empty(0, int)])).astype(int)
        content[split] = {
            "drop": every.tolist(), "reasons": {reason: rows.tolist() for reason, rows in reasons.items()},
            "size": len(sources[split]),
        }  # fmt: skip
        known = sources[split].spec.meta.get("fingerprint")
        if known:
            content[split]["base_fingerprint"] = str(known)
    return content
