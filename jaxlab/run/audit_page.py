"""The audit as one HTML file that needs no other: findings, plots as PNG within it, near duplicates side by side.

Shows no targets but the classes' counts that the report holds. Figures are made without pyplot.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import image as pictures
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxlab.core.types import Source
from jaxlab.data.audit.pairs import Overlap, read_field
from jaxlab.data.audit.survey import Survey, column, names_of

_SHOWN_PAIRS = 24
_SHOWN_COLUMNS = 60  # rows of the table of ranges
_PLOTTED = 24  # histograms
_CHARACTERS = 400  # of a text that are shown
_COLOURS = {"error": "#b3261e", "warning": "#9a6700", "note": "#57606a"}
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#1f2328;background:#fff}
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{padding:.2em .8em;text-align:left;vertical-align:top;
border-bottom:1px solid #d8dee4;font-variant-numeric:tabular-nums}th{font-weight:600}h2{margin-top:2em}
img.plot{max-width:100%}img.small{width:84px;height:84px;object-fit:contain;image-rendering:pixelated;background:#eee}
figure{display:inline-block;margin:.3em 1em .3em 0}figcaption{font-size:12px;color:#57606a}
pre{background:#f6f8fa;padding:.8em;overflow:auto}b.level{color:#fff;padding:0 .5em;border-radius:3px;font-size:13px}
"""


def page(
    report: Mapping[str, Any], surveys: Sequence[Survey], shared: Sequence[Overlap], sources: Mapping[str, Source]
) -> str:
    """Return the page of a report: what ``audit.json`` holds, and pictures of what stands in `surveys`."""
    parts = [
        "<h1>Audit of the data</h1>", f"<p>{_summary(report)}</p>", "<h2>Findings</h2>", _findings(report),
        "<h2>Splits</h2>", _splits(report), *_balance(report), *_histograms(surveys), *_ranges(report),
        *_shared(surveys, shared, sources), "<h2>The filter</h2>", _filter(report),
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><title>Audit</title><style>{_STYLE}</style>'
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _summary(report: Mapping[str, Any]) -> str:
    levels = [finding["level"] for finding in report["findings"]]
    counts = ", ".join(f"{(n := levels.count(level))} {level}{'s' * (n != 1)}" for level in _COLOURS)
    target = report["target"]
    read = ", ".join(f"{split} {facts['target_rows_read']:,}" for split, facts in report["splits"].items())
    told = f"Target: <code>{html.escape(target)}</code>. Rows of which it was read: {read}." if target else "No target."
    return f"{counts}. {told} Data as its source gives it, before any transform."


def _findings(report: Mapping[str, Any]) -> str:
    rows = [
        [f'<b class="level" style="background:{_COLOURS[f["level"]]}">{f["level"]}</b>', html.escape(f["split"]),
         html.escape(f["code"].replace("_", " ")), html.escape(f["message"])]
        for f in report["findings"]
    ]  # fmt: skip
    return _table(["", "split", "what", ""], rows) if rows else "<p>None.</p>"


def _splits(report: Mapping[str, Any]) -> str:
    rows = []
    for split, facts in report["splits"].items():
        kinds = ", ".join(f"{html.escape(name)} ({field['kind']})" for name, field in facts["fields"].items())
        missing = sum(field["missing"] for field in facts["fields"].values())
        numbers = (facts["size"], facts["rows"], facts["duplicates"], missing)
        rows.append([html.escape(split), *(f"{number:,}" for number in numbers), kinds])
    return _table(["split", "rows", "looked at", "repeated", "missing in fields", "fields"], rows)


def _balance(report: Mapping[str, Any]) -> Iterator[str]:
    counts = {split: facts["classes"] for split, facts in report["splits"].items() if "classes" in facts}
    if not counts:
        return
    names = sorted({name for split in counts.values() for name in split}, key=_natural)[:100]
    figure = Figure(figsize=(max(6.0, 0.28 * len(names) * len(counts) + 2), 3.4), layout="constrained")
    axes = figure.subplots()
    for place, (split, found) in enumerate(counts.items()):
        shares = np.array([found.get(name, 0) for name in names]) / max(sum(found.values()), 1)
        axes.bar(
            np.arange(len(names)) + (place + 0.5) / len(counts) * 0.8 - 0.4, shares, 0.8 / len(counts), label=split
        )
    axes.set(ylabel="share of rows", xticks=np.arange(len(names)))
    axes.set_xticklabels([name[:18] for name in names], rotation=45 if max(map(len, names)) > 3 else 0, ha="center")
    axes.legend(loc="lower right")
    yield f"<h2>Classes</h2>{_plot(figure)}"
    hidden = [split for split in report["splits"] if split not in counts]
    if hidden:
        yield f"<p>Not shown, as not read: {html.escape(', '.join(hidden))}.</p>"
    if len(names) <= _SHOWN_COLUMNS:
        rows = [[html.escape(n), *(f"{found.get(n, 0):,}" for found in counts.values())] for n in names]
        yield _table(["class", *map(html.escape, counts)], rows)


def _natural(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name


def _histograms(surveys: Sequence[Survey]) -> Iterator[str]:
    first = surveys[0]
    wanted: list[tuple[str, list[tuple[str, np.ndarray]]]] = []
    for name, kept in first.fields.items():
        for part in ("mean", "characters", "words", "length"):
            if part in kept:
                title = f"{name}: {'mean of a row' if part == 'mean' else part}"
                wanted.append((title, [(s.split, s.fields[name][part]) for s in surveys if name in s.fields]))
    for name, place in names_of(first).items():
        if first.kinds[place[0]] == "columns":
            there = [s for s in surveys if name in names_of(s)] if len(wanted) < _PLOTTED else []
            wanted.append((name, [(s.split, column(s, place)) for s in there]))
    if not wanted:
        return
    shown = wanted[:_PLOTTED]
    width = min(3, len(shown))
    height = -(-len(shown) // width)
    figure = Figure(figsize=(3.7 * width, 2.3 * height), layout="constrained")
    grid = figure.subplots(height, width, squeeze=False).reshape(-1)
    for axes, (title, values) in zip(grid, shown, strict=False):
        _histogram(axes, title, values)
    for axes in grid[len(shown) :]:
        axes.set_visible(False)
    more = f"<p>The first {_PLOTTED} of {len(wanted)}.</p>" if len(wanted) > _PLOTTED else ""
    yield f"<h2>Lengths and ranges</h2>{_plot(figure)}{more}"


def _histogram(axes: Axes, title: str, values: Sequence[tuple[str, np.ndarray]]) -> None:
    finite = [(split, v[np.isfinite(v)].astype(np.float64)) for split, v in values]
    every = np.concatenate([v for _, v in finite]) if finite else np.empty(0)
    if len(every):
        low, high = float(every.min()), float(every.max())
        edges = np.linspace(low, high, 41) if high > low else np.array([low - 0.5, low + 0.5])
        for split, v in finite:
            counts = np.histogram(v, edges)[0] / max(len(v), 1)
            axes.stairs(counts, edges, label=split)
        axes.legend(fontsize=7)
    axes.set_title(title[:40], fontsize=9)
    axes.tick_params(labelsize=7)


def _ranges(report: Mapping[str, Any]) -> Iterator[str]:
    rows: dict[str, list[list[str]]] = {}  # by field: the splits' rows side by side, in the data's order
    left_out = 0
    for split, facts in report["splits"].items():
        told: list[tuple[str, Mapping[str, Any]]] = [("the target", facts["target"])] if "target" in facts else []
        for name, field in facts["fields"].items():
            told += [
                (f"{name}: {part}", field[part]) for part in ("range", "characters", "words", "length") if part in field
            ]
            told += list(field.get("columns", {}).items())
        left_out += max(0, len(told) - _SHOWN_COLUMNS)
        for name, values in told[:_SHOWN_COLUMNS]:
            quantiles = values.get("quantiles", {})
            numbers = [values.get("missing"), *(values.get(key) for key in ("min", "max", "mean", "std")),
                       *(quantiles.get(q) for q in ("0.05", "0.5", "0.95")), values.get("distinct")]  # fmt: skip
            rows.setdefault(name, []).append([html.escape(name), html.escape(split), *map(_number, numbers)])
    names = ["field", "split", "missing", "min", "max", "mean", "std", "5 %", "median", "95 %", "distinct"]
    yield _table(names, [row for of_field in rows.values() for row in of_field])
    if left_out:
        yield f"<p>{left_out} more rows are in audit.json.</p>"


def _shared(surveys: Sequence[Survey], shared: Sequence[Overlap], sources: Mapping[str, Source]) -> Iterator[str]:
    if shared:
        yield "<h2>Rows that splits share</h2>"
    kinds = surveys[0].kinds
    for overlap in shared:
        fields = [overlap.field] if overlap.field else [n for n in surveys[0].inputs if kinds[n] in ("image", "text")]
        what = f"near duplicates in {overlap.field}" if overlap.field else "equal inputs"
        yield f"<h3>{html.escape(f'{overlap.left} and {overlap.right}: {what}')} ({len(overlap.pairs):,} pairs)</h3>"
        best = np.argsort(-overlap.similarity, kind="stable")[:_SHOWN_PAIRS]
        if not fields:
            listed = ", ".join(f"{i}&nbsp;=&nbsp;{j}" for i, j in overlap.pairs[best])
            yield f"<p>Rows {listed}{' …' if len(overlap.pairs) > len(best) else ''}</p>"
            continue
        field = fields[0]
        left, right = (
            [read_field(sources[split], np.array([row]), field)[0] for row in overlap.pairs[best, side]]
            for side, split in enumerate((overlap.left, overlap.right))
        )
        for place, one, other in zip(best, left, right, strict=True):
            i, j = overlap.pairs[place]
            caption = f"{overlap.left} {i}, {overlap.right} {j}: {overlap.similarity[place]:.3f}"
            yield f"<figure>{_show(one)} {_show(other)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f'<img class="small" alt="" src="{_png(value)}">'
    text = str(value)
    return f"<pre>{html.escape(text[:_CHARACTERS])}{'…' if len(text) > _CHARACTERS else ''}</pre>"


def _png(image_HWC: np.ndarray) -> str:
    """Return an image as a data URL; numbers that are not bytes are spread over its own range."""
    shown = image_HWC if image_HWC.shape[-1] in (3, 4) else image_HWC.mean(axis=-1)
    if image_HWC.dtype != np.uint8:
        shown = np.nan_to_num(shown.astype(np.float64))
        shown = (shown - shown.min()) / max(float(np.ptp(shown)), 1e-12)
    buffer = io.BytesIO()
    high = 255 if image_HWC.dtype == np.uint8 else 1
    pictures.imsave(buffer, shown, format="png", cmap="gray", vmin=0, vmax=high)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _plot(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, format="png")
    return f'<img class="plot" alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"


def _filter(report: Mapping[str, Any]) -> str:
    code = 'spec("jaxlab.data.splits:filtered", source=spec("..."), path=".../filter.json", split="train")'
    rows = [
        [html.escape(split), html.escape(reason.replace("_", " ")), f"{count:,}"]
        for split, reasons in report["filter"].items()
        for reason, count in reasons.items()
    ]
    return (
        "<p>Nothing has been deleted. <code>filter.json</code>, beside this page, lists the rows that you may want to "
        f"leave out, with reasons:</p>{_table(['split', 'reason', 'rows'], rows) if rows else '<p>None.</p>'}"
        f"<p>A config names it:</p><pre>{html.escape(code)}</pre>"
    )
