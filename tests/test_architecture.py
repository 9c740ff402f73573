"""DESIGN.md's floors and house rules, enforced on the source by `ast`, function-level imports included.

A rule is a function from a source tree to complaints; each is tried on a bad tree too, as it must be able to fail.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FACE = "jaxlab"  # jaxlab/__init__.py: above all floors, imported by none of them
LEAVES = ("data", "models", "objectives", "metrics", "optim", "compress", "track")
FLOORS = {"cli": 5, "study": 4, "export": 4, "run": 3, "train": 2, **dict.fromkeys(LEAVES, 2), "core": 1}
NO_JAX_AT_TOP = ("core/record.py", "core/errors.py", "cli/__init__.py", "cli/flags.py", "cli/show.py")
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve"}
SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:|pylint:|mypy:|ruff:)")
FILE_LINES, FUNCTION_LINES = 250, 60


class Import(NamedTuple):
    line: int
    module: str
    name: str
    at_top: bool


class Source(NamedTuple):
    path: str
    module: str
    text: str
    tree: ast.Module
    imports: list[Import]


def read(root: Path) -> dict[str, Source]:
    """Return every file of ``root/jaxlab`` by its module's name."""
    sources = {}
    for path in sorted((root / FACE).rglob("*.py")):
        relative = path.relative_to(root / FACE)
        parts = [FACE, *relative.with_suffix("").parts]
        package = parts[:-1]
        module = ".".join(package if parts[-1] == "__init__" else parts)
        text = path.read_text()
        tree = ast.parse(text, str(path))
        sources[module] = Source(relative.as_posix(), module, text, tree, list(_imports(tree, package, True)))
    return sources


def _imports(node: ast.AST, package: list[str], at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(child.lineno, alias.name, "", at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = package[: len(package) - child.level + 1] if child.level else []
            module = ".".join([*base, *([child.module] if child.module else [])])
            yield from (Import(child.lineno, module, alias.name, at_top) for alias in child.names)
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith(("import_module", "__import__")):
            literals = [arg.value for arg in child.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            yield from (Import(child.lineno, name, "", at_top) for name in literals[:1])
        in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        yield from _imports(child, package, at_top and not in_function and not typing_only)


def targets(source: Source, sources: dict[str, Source]) -> Iterator[tuple[Import, str]]:
    """Yield each import of jaxlab with the module it means: ``from jaxlab.core import rng`` means the latter."""
    for imported in source.imports:
        if imported.module == FACE or imported.module.startswith(f"{FACE}."):
            longer = f"{imported.module}.{imported.name}"
            package = imported.module == FACE and imported.name in FLOORS
            yield imported, longer if longer in sources or package else imported.module


def package_of(module: str) -> str:
    """Return ``train`` for ``jaxlab.train.step``, and ``jaxlab`` for the face itself."""
    return module.split(".")[1] if "." in module else FACE


def floors(sources: dict[str, Source]) -> list[str]:
    """Report imports that do not point to a lower floor or into the same package."""
    complaints = []
    for source in sources.values():
        here = package_of(source.module)
        if here != FACE and here not in FLOORS:
            complaints.append(f"{source.path}: package {here!r} has no floor")
        for imported, target in targets(source, sources):
            there = package_of(target)
            lower = here == FACE or FLOORS.get(there, 99) < FLOORS.get(here, 0)
            if there != here and not lower:
                complaints.append(f"{source.path}:{imported.line}: {here} may not import {target}")
    return complaints


def eager_face(sources: dict[str, Source]) -> list[str]:
    """Report what ``import jaxlab`` itself would import beyond the standard library."""
    light = sys.stdlib_module_names
    eager = [i for i in sources[FACE].imports if i.at_top and i.module.split(".")[0] not in light]
    return [f"__init__.py:{imported.line}: imports {imported.module} eagerly" for imported in eager]


def builders(sources: dict[str, Source]) -> list[str]:
    """Report modules other than run's that take hold of `config.build`."""
    complaints = []
    for source in sources.values():
        if package_of(source.module) in ("run", FACE) or source.module == f"{FACE}.core.config":
            continue
        lines = [i.line for i, _ in targets(source, sources) if i.module == f"{FACE}.core.config" and i.name == "build"]
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute) and node.attr == "build":
                holder = ast.unparse(node.value)
                if holder in ("config", "configs", FACE) or holder.endswith("core.config"):
                    lines.append(node.lineno)
        complaints += [f"{source.path}:{line}: only run may call config.build" for line in lines]
    return complaints


def jax_at_top(sources: dict[str, Source]) -> list[str]:
    """Report top-level imports of JAX in the files that must do without."""
    found = [(s, i) for s in sources.values() if s.path in NO_JAX_AT_TOP for i in s.imports if i.at_top]
    return [
        f"{source.path}:{imported.line}: imports {imported.module} at the top"
        for source, imported in found
        if imported.module.split(".")[0] in ("jax", "jaxlib", "flax", "optax", "orbax")
    ]


def cycles(sources: dict[str, Source]) -> list[str]:
    """Report a ring of modules that import each other."""
    graph = {name: {target for _, target in targets(source, sources)} for name, source in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return ["import cycle: " + " -> ".join(error.args[1])]
    return []


def too_long(sources: dict[str, Source]) -> list[str]:
    """Report files and functions beyond the house's lengths."""
    complaints = []
    for source in sources.values():
        lines = len(source.text.splitlines())
        if lines > FILE_LINES:
            complaints.append(f"{source.path}: {lines} lines, at most {FILE_LINES}")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    complaints.append(f"{source.path}:{node.lineno}: {node.name} has {length} lines")
    return complaints


def suppressions(sources: dict[str, Source]) -> list[str]:
    """Report comments that silence a linter or type checker."""
    return [
        f"{source.path}:{token.start[0]}: suppression {token.string!r}"
        for source in sources.values()
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline)
        if token.type == tokenize.COMMENT and SUPPRESSION.search(token.string)
    ]


def pickles(sources: dict[str, Source]) -> list[str]:
    """Report imports of pickle and its kin: a checkpoint or bundle from elsewhere must not run code."""
    found = [(s, i) for s in sources.values() for i in s.imports if i.module.split(".")[0] in PICKLES]
    return [f"{source.path}:{imported.line}: imports {imported.module}" for source, imported in found]


Rule = Callable[[dict[str, Source]], list[str]]
RULES: list[Rule] = [floors, eager_face, builders, jax_at_top, cycles, too_long, suppressions, pickles]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_jaxlab_keeps_the_rule(rule):
    complaints = rule(read(ROOT))
    assert not complaints, "\n" + "\n".join(complaints)


def test_the_real_tree_was_read():
    assert {"jaxlab", "jaxlab.core.config", "jaxlab.core.types"} <= set(read(ROOT))


BAD = [
    (floors, "core/a.py", "import jaxlab.train.step", "core may not import jaxlab.train.step"),
    (floors, "core/a.py", "def f():\n    from jaxlab.run import train", "a.py:2: core may not import jaxlab.run"),
    (floors, "core/a.py", "def f():\n    import_module('jaxlab.train.step')", "core may not import jaxlab.train"),
    (floors, "core/a.py", "if TYPE_CHECKING:\n    from jaxlab import models", "core may not import jaxlab.models"),
    (floors, "models/a.py", "from jaxlab.data import arrays", "models may not import jaxlab.data"),
    (floors, "models/a.py", "from ..metrics import classify", "models may not import jaxlab.metrics"),
    (floors, "models/deep/a.py", "from ... import optim", "models may not import jaxlab.optim"),
    (floors, "optim/a.py", "class A:\n    def f(self):\n        import jaxlab.train", "optim may not import jaxlab"),
    (floors, "train/a.py", "from jaxlab.models.mlp import make", "train may not import jaxlab.models.mlp"),
    (floors, "run/a.py", "from jaxlab.study import grid", "run may not import jaxlab.study"),
    (floors, "study/a.py", "from jaxlab.export import bundle", "study may not import jaxlab.export"),
    (floors, "run/a.py", "import jaxlab", "run may not import jaxlab"),
    (floors, "misc/a.py", "", "'misc' has no floor"),
    (eager_face, "__init__.py", "from jaxlab.core import config", "imports jaxlab.core eagerly"),
    (eager_face, "__init__.py", "try:\n    import jax\nexcept ImportError:\n    pass", "imports jax eagerly"),
    (builders, "train/a.py", "from jaxlab.core.config import build", "only run may call config.build"),
    (builders, "study/a.py", "from jaxlab.core import config as configs\nconfigs.build(1)", "a.py:2: only run"),
    (jax_at_top, "core/record.py", "from jax import numpy", "imports jax at the top"),
    (jax_at_top, "cli/__init__.py", "try:\n    import jax.numpy\nfinally:\n    pass", "imports jax.numpy at the top"),
    (cycles, "core/b.py", "def f():\n    from jaxlab.core import good", "import cycle"),
    (too_long, "core/a.py", "\n" * 251, "251 lines"),
    (too_long, "core/a.py", "def f():\n" + "    x = 1\n" * 60, "f has 61 lines"),
    (suppressions, "core/a.py", "import os  # noqa: F401", "suppression"),
    (suppressions, "core/a.py", "x = 1  # type: ignore", "suppression"),
    (pickles, "data/a.py", "def f():\n    from pickle import loads", "imports pickle"),
]
GOOD = {
    "__init__.py": "import sys\n\ndef __getattr__(name):\n    from jaxlab.run import go\n    return go\n",
    "core/good.py": "from jaxlab.core import b\nnote = '# noqa is only a word here'\n",
    "core/b.py": "",
    "core/record.py": "def lazily():\n    import jax\n    return jax\n",
    "train/step.py": "from jaxlab.core.good import note\n",
    "models/mlp.py": "from . import layers\n",
    "models/layers.py": "from ..core import good\n",
    "run/go.py": "from jaxlab.core.config import build\nfrom jaxlab.models import mlp\nfrom jaxlab.train import step\n",
    "cli/__init__.py": "def main():\n    from jaxlab.run.go import build\n    return build\n",
}


def plant(root: Path, files: dict[str, str]) -> dict[str, Source]:
    for name, text in files.items():
        path = root / FACE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read(root)


def test_a_good_tree_has_no_complaints(tmp_path):
    sources = plant(tmp_path, GOOD)
    assert [complaint for rule in RULES for complaint in rule(sources)] == []


@pytest.mark.parametrize(("rule", "path", "text", "complaint"), BAD, ids=[f"{r.__name__}-{p}" for r, p, *_ in BAD])
def test_a_bad_file_in_a_good_tree_is_reported_by_its_rule(tmp_path, rule, path, text, complaint):
    found = rule(plant(tmp_path, {**GOOD, path: text}))
    assert len(found) == 1, found
    assert complaint in found[0]
