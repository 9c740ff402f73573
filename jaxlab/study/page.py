"""A report as a list of parts, and its two forms: Markdown with pictures beside it, and one HTML file with all inside.

Usage: ``write(folder, "title", [Text("# …"), Picture("arms", svg), Grid(header, rows)])``.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

from jaxlab.core import record
from jaxlab.study.svg import STYLE

MARKDOWN, HTML, PLOTS = "REPORT.md", "report.html", "plots"
_STYLE = """
:root{--ink:#1c1c1e;--soft:#6b6b70;--line:#e1e1e6;--paper:#fff;--card:#f7f7f9;--accent:#0072b2;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#ececf0;--soft:#a0a0a8;--line:#3a3a40;--paper:#161618;--card:#202024;
--accent:#6cb8ee}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:64rem;margin:0 auto;padding:2.5rem 1.25rem 5rem}
h1{font-size:1.9rem;line-height:1.2;letter-spacing:-.02em;margin:0 0 1rem}
h2{font-size:1.25rem;margin:2.75rem 0 .75rem;padding-top:.5rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.5rem 0 .5rem}a{color:var(--accent);text-underline-offset:2px}
figure{margin:1rem 0;overflow-x:auto}figure svg{min-width:36rem}figcaption,.soft{color:var(--soft);font-size:.9rem}
.wide{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;
min-width:100%}th,td{padding:.4rem .7rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;white-space:nowrap;color:var(--soft)}td.n,th.n{text-align:right;white-space:nowrap}
th[role=button]{cursor:pointer}tbody tr:hover{background:var(--card)}
pre{background:var(--card);padding:1rem;border-radius:.5rem;overflow-x:auto;font-size:.85rem;line-height:1.5}
code{font-size:.9em}ul{padding-left:1.2rem}li{margin:.35rem 0}img{max-width:100%;border-radius:.4rem;background:#fff}
.key{cursor:pointer}.faded{opacity:.12}details{margin:1rem 0}summary{cursor:pointer;font-weight:600}
@media print{main{max-width:none}}
"""
_SCRIPT = """
document.querySelectorAll('table').forEach(t=>t.querySelectorAll('th').forEach((h,i)=>{h.setAttribute('role','button');
h.title='sort';let up=true;h.onclick=()=>{const b=t.tBodies[0],v=r=>{const x=r.cells[i].dataset.v??r.cells[i].innerText;
const n=parseFloat(x.replace('−','-'));return isNaN(n)?x:n};[...b.rows].sort((p,q)=>{const a=v(p),c=v(q);
return (a>c?1:a<c?-1:0)*(up?1:-1)}).forEach(r=>b.append(r));up=!up}}));
document.querySelectorAll('figure').forEach(f=>f.querySelectorAll('.key').forEach(k=>k.onclick=()=>{
f.querySelectorAll('[data-arm]').forEach(g=>{if(g.dataset.arm===k.dataset.key){g.classList.toggle('faded');
k.classList.toggle('faded')}})}));
"""


class Text(NamedTuple):
    """Markdown."""

    text: str


class Picture(NamedTuple):
    """An SVG by name, or a picture in a file; `caption` is Markdown of a line."""

    name: str
    svg: str = ""
    file: Path | None = None
    caption: str = ""


class Grid(NamedTuple):
    """A table: cells are Markdown; columns whose header ends with ``:`` hold numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Folded(NamedTuple):
    """Text that is shown when asked for."""

    title: str
    text: str


Part = Text | Picture | Grid | Folded


def write(folder: Path, title: str, parts: Sequence[Part]) -> None:
    """Write both forms; each is replaced as a whole."""
    for part in parts:
        if isinstance(part, Picture) and part.svg:
            alone = part.svg.replace(">", f"><style>{STYLE}</style>", 1)
            record.write_atomically(folder / PLOTS / f"{part.name}.svg", alone)
    record.write_atomically(folder / MARKDOWN, "\n\n".join(_markdown(part, folder) for part in parts) + "\n")
    body = "\n".join(_html(part) for part in parts)
    record.write_atomically(folder / HTML, _page(title, body))


def _markdown(part: Part, folder: Path) -> str:
    match part:
        case Text(text):
            return text
        case Grid(header, rows):
            lines = [_cells([name.removesuffix(":") for name in header])]
            lines.append(_cells(["---:" if name.endswith(":") else "---" for name in header]))
            return "\n".join([*lines, *map(_cells, rows)])
        case Picture(name, _, file, caption):
            place = f"{PLOTS}/{name}.svg" if file is None else str(file.relative_to(folder))
            return f"![{name}]({place})" + (f"\n\n{caption}" if caption else "")
        case Folded(title, text):
            return f"<details><summary>{escape(title)}</summary>\n\n{text}\n\n</details>"


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _html(part: Part) -> str:
    render = MarkdownIt("commonmark", {"html": False}).enable("table")  # what a README or a label holds stays text
    match part:
        case Text(text):
            return render.render(text)
        case Grid(header, rows):
            numeric = [' class="n"' if name.endswith(":") else "" for name in header]
            head = "".join(f"<th{n}>{escape(h.removesuffix(':'))}</th>" for h, n in zip(header, numeric, strict=True))
            body = "".join(
                "<tr>"
                + "".join(f"<td{n}>{render.renderInline(c)}</td>" for c, n in zip(row, numeric, strict=True))
                + "</tr>"
                for row in rows
            )
            return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        case Picture(_, svg, file, caption):
            inside = svg if file is None else f'<img alt="{escape(file.stem)}" src="{_data(file)}">'
            below = f"<figcaption>{render.renderInline(caption)}</figcaption>" if caption else ""
            return f"<figure>{inside}{below}</figure>"
        case Folded(title, text):
            return f"<details><summary>{escape(title)}</summary>{render.render(text)}</details>"


def _data(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{STYLE}</style></head>"
        f"<body><main>{body}</main><script>{_SCRIPT}</script></body></html>\n"
    )
