"""The picture of the package: who imports whom, how long functions are, what importing it costs."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from livekit.agents import Plugin
from livekit.plugins import tiro

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(tiro.__file__).parent
ROOT = PACKAGE.parents[2]
MODULES = sorted(PACKAGE.glob("*.py"))
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Each layer may import the ones below it, and nothing beside or above it.
LAYERS = [
    {"__init__"},
    {"stt"},
    {"stream"},
    {"exchange", "dial", "outlet"},
    {"connection", "transcript", "journal", "flusher", "lookout"},
    {"recovery", "feed", "protocol"},
    {"watch", "endpointing"},
    {"monologue", "replay"},
    {"backlog", "keys", "reach"},
    {"loudness", "drift", "clock", "errors", "onset", "environment"},
    {"options", "log", "version", "stats", "endpointer"},
]
RANK = {name: -depth for depth, layer in enumerate(LAYERS) for name in layer}


class Imports(ast.NodeVisitor):
    """Collects the absolute names that a module imports, at run time and for types alone."""

    def __init__(self, package: str) -> None:
        self.package = package.split(".")
        self.at_run_time: set[str] = set()
        self.for_types: set[str] = set()
        self._found = self.at_run_time

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            self._found = self.for_types
            for child in node.body:
                self.visit(child)
            self._found = self.at_run_time
            node.body = []
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self._found.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self.package[: len(self.package) - node.level + 1] if node.level else []
        module = ".".join([*base, *filter(None, [node.module])])
        for alias in node.names:
            # `from . import errors` names a module, `from .errors import Redactor` does not.
            inner = f"{module}.{alias.name}"
            self._found.add(inner if is_module(inner) else module)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> Imports:
    found = Imports(".".join(path.relative_to(ROOT).parent.parts))
    # Parsed anew, because the visitor takes the tree apart.
    found.visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.fixture(scope="module", autouse=True)
def _forget_trees() -> Iterator[None]:
    """Some 170,000 objects, through which each garbage collection of later tests would look."""
    yield
    tree.cache_clear()
    imports.cache_clear()


def own(names: set[str]) -> set[str]:
    """The first parts of the names below the package: `stream`, `testing`."""
    prefix = tiro.__name__ + "."
    return {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}


def foreign(names: set[str]) -> set[str]:
    """The top-level packages that are neither ours nor the standard library's."""
    others = {name for name in names if not name.startswith(tiro.__name__)}
    return {name.split(".")[0] for name in others} - set(sys.stdlib_module_names)


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(PACKAGE)}:{node.name}", node


# -- imports -------------------------------------------------------------------------------------


def test_the_visitor_sees_imports() -> None:
    """A test of imports that finds none would always pass."""
    connection = imports(PACKAGE / "connection.py")
    assert own(connection.at_run_time) == {"errors", "protocol", "log", "reach", "recovery"}
    assert own(connection.for_types) >= {"options", "protocol"}
    assert foreign(connection.at_run_time) == {"aiohttp", "livekit"}


def test_every_module_has_its_layer() -> None:
    assert {path.stem for path in MODULES} == RANK.keys() | {"__main__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_import_runs_upward(path: Path) -> None:
    if path.stem == "__main__":
        assert own(imports(path).at_run_time) == {"cli"}
        return
    for name in own(imports(path).at_run_time):
        assert name in RANK, f"{path.stem} is of the plugin proper and imports {name}"
        assert RANK[name] < RANK[path.stem], f"{path.stem} imports {name}"


def test_the_map_has_every_module_and_the_layers() -> None:
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    pictures = told.split("```")[1::2]
    in_pictures = set(re.findall(r"[\w/]+\.py|\w+/", "".join(pictures)))
    commands = PACKAGE / "cli"
    assert {path.name for path in MODULES} - {"__init__.py", "__main__.py"} <= in_pictures
    assert {path.name for path in commands.glob("*.py")} - {"__init__.py"} <= in_pictures
    assert {f"{path.parent.name}/" for path in commands.glob("*/__init__.py")} <= in_pictures
    layers = [set(line.split()) for line in pictures[1].strip().splitlines()]
    assert layers == LAYERS[1:]


def test_a_part_of_the_map_uses_those_below_it() -> None:
    """Or is given them, and so imports them for their types."""
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    above: list[str] = []
    edges = []
    for line in told.split("```")[1].splitlines():
        part = re.match(r"([│ ├└─]*)(\w+)\.py", line)
        if part is None:
            # The second half of the map is no tree.
            if above:
                break
            continue
        depth = len(part[1]) // 4
        del above[depth:]
        edges += [(parent, part[2]) for parent in above[-1:]]
        above.append(part[2])
    assert len(edges) > 20
    for parent, child in edges:
        found = imports(PACKAGE / f"{parent}.py")
        assert child in own(found.at_run_time | found.for_types), (parent, child)


CORE = ["backlog", "clock", "feed", "loudness", "onset", "options", "protocol", "recovery", "stats"]
CORE += ["drift", "endpointer", "endpointing", "monologue", "replay", "watch"]


@pytest.mark.parametrize("name", CORE)
def test_the_core_does_no_io(name: str) -> None:
    """The standard library and numpy at most, and nothing of it that waits or connects."""
    names = imports(PACKAGE / f"{name}.py").at_run_time
    # What the end of a connection means can be an error of the framework.
    assert foreign(names) <= ({"livekit"} if name == "recovery" else {"numpy"})
    assert not names & {"asyncio", "socket", "ssl", "time", "threading", "os", "random"}


def test_only_the_connection_and_the_way_to_it_know_sockets() -> None:
    with_sockets = {
        path.stem for path in MODULES if imports(path).at_run_time & {"aiohttp", "socket", "ssl"}
    }
    assert with_sockets == {"connection", "reach"}


@pytest.mark.parametrize("part", ["testing", "cli"])
def test_the_parts_on_top_are_on_top(part: str) -> None:
    """The plugin proper does without them, and the local server does without the command line."""
    importers = {
        path.relative_to(PACKAGE).parts[0]
        for path in SOURCES
        if part in own(imports(path).at_run_time | imports(path).for_types)
    }
    allowed = {"testing": {"testing", "cli"}, "cli": {"cli", "__main__.py"}}
    assert importers <= allowed[part]


# -- form ----------------------------------------------------------------------------------------


def test_no_function_is_long() -> None:
    """40 lines at most, the signature and the docstring not counted."""
    long = []
    for name, function in functions():
        body = function.body
        if ast.get_docstring(function) is not None:
            body = body[1:]
        if body and (body[-1].end_lineno or 0) - body[0].lineno + 1 > 40:
            long.append(name)
    assert long == []


def test_classes_and_modules_of_the_plugin_proper_are_short() -> None:
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                body = [child for child in node.body if child.end_lineno is not None]
                lines[f"{path.stem}.{node.name}"] = (body[-1].end_lineno or 0) - node.lineno + 1
    long = {name: count for name, count in lines.items() if count > (450 if ".py" in name else 300)}
    assert long == {}


def test_every_attribute_is_written_by_its_own_class() -> None:
    """Other classes have to call a method to change it."""
    own_attributes = {
        node.attr
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    foreign_writes = [
        f"{path.stem}:{node.lineno} {ast.unparse(node)}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
        and node.attr in own_attributes
    ]
    assert foreign_writes == []


OF_LEVELS = re.compile(r"level|loud|peak|samples|pcm|amplitude|floor|\.max\(")
COUNTS = re.compile(r"len|count_nonzero|flatnonzero")


class _WithoutCounts(ast.NodeTransformer):
    """Takes out calls that count samples or frames, whatever is in them."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if COUNTS.search(ast.unparse(node.func)):
            return ast.Name("how_many", ast.Load())
        return self.generic_visit(node)


def absolute_levels(source: str) -> list[str]:
    """Return the comparisons of how loud something is with numbers alone."""
    module = ast.parse(source)
    constants = {
        target.id
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and not isinstance(node.value, ast.Name)
    }

    def is_number(node: ast.expr) -> bool:
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        values = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
        if any(isinstance(n, ast.Call | ast.Attribute) for n in ast.walk(node)):
            return False
        return names <= constants and all(isinstance(n, int | float) for n in values)

    found = []
    for node in ast.walk(module):
        if not isinstance(node, ast.Compare):
            continue
        sides = [_WithoutCounts().visit(side) for side in (node.left, *node.comparators)]
        texts = [ast.unparse(side) for side in sides]
        numbers = [is_number(side) and text != "0" for side, text in zip(sides, texts, strict=True)]
        levels = [bool(OF_LEVELS.search(text)) for text in texts]
        if any(numbers) and any(levels):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "source",
    [
        "loud = levels > 328",
        "_SPEECH = 328\nloud = levels >= _SPEECH",
        "_SPEECH = 0.01 * 32768\nloud = np.abs(samples).max() < _SPEECH / 2",
    ],
)
def test_an_absolute_loudness_is_found(source: str) -> None:
    assert len(absolute_levels(source)) == 1


def test_no_loudness_is_absolute() -> None:
    """Samples are compared only with levels that were learned from the line."""
    for path in MODULES:
        assert absolute_levels(path.read_text()) == [], path.stem
    numbers = {
        node.value
        for node in ast.walk(tree(PACKAGE / "loudness.py"))
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float)
    }
    # Counts of frames, shares and ratios; no level of quiet speech.
    assert max(numbers) <= 50


def test_no_state_is_shared_by_nonlocal() -> None:
    shared = [
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if any(isinstance(node, ast.Nonlocal | ast.Global) for node in ast.walk(tree(path)))
    ]
    assert shared == []


def test_no_named_tuple_has_another_base() -> None:
    """Python 3.10 can not make one, and no type checker says so."""
    found = []
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and len(node.bases) > 1:
                bases = [ast.unparse(base) for base in node.bases]
                found += [f"{path.name}: {node.name}"] if "NamedTuple" in bases else []
    assert not found


def test_no_two_classes_of_the_tests_have_one_name() -> None:
    """Top-level classes only; a name says what a fake or a hook is, wherever it is imported."""
    files: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        # To parse them all takes a second.
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            files.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert files
    assert {name: found for name, found in files.items() if len(found) > 1} == {}


def test_the_namespace_packages_have_no_init() -> None:
    """PEP 420: one would hide all other plugins."""
    assert not (ROOT / "livekit" / "__init__.py").exists()
    assert not (ROOT / "livekit" / "plugins" / "__init__.py").exists()
    assert (PACKAGE / "py.typed").exists()


def test_annotations_are_not_evaluated() -> None:
    """`from __future__ import annotations` wherever there are any."""
    without = [
        name
        for name in {name.partition(":")[0] for name, _ in functions()} - {"__init__.py"}
        if "__future__" not in imports(PACKAGE / name).at_run_time
    ]
    assert without == []


# -- the package as a whole ----------------------------------------------------------------------


def test_the_public_names() -> None:
    everything: dict[str, object] = {}
    exec("from livekit.plugins.tiro import *", everything)
    del everything["__builtins__"]
    assert everything.keys() == set(tiro.__all__) == {"STT", "SpeechStream", "Stats", "__version__"}
    assert everything["STT"] is tiro.STT
    assert everything["SpeechStream"] is tiro.SpeechStream
    assert everything["Stats"] is tiro.Stats


def test_the_public_names_are_documented() -> None:
    assert tiro.__doc__
    for public in (tiro.STT, tiro.SpeechStream):
        names = [name for name in vars(public) if not name.startswith("_")]
        assert names
        for name in names:
            assert getattr(public, name).__doc__, f"{public.__name__}.{name}"


def test_the_plugin_is_registered() -> None:
    (plugin,) = [p for p in Plugin.registered_plugins if p.package == "livekit.plugins.tiro"]
    assert plugin.title == "livekit.plugins.tiro"
    assert plugin.version == tiro.__version__
    assert plugin.logger is not None and plugin.logger.name == "livekit.plugins.tiro"


LOADED = """
import json, sys
import livekit.agents
before = set(sys.modules)
import livekit.plugins.tiro
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_the_plugin_loads_nothing_but_the_plugin_proper() -> None:
    """On top of the framework, with all warnings as errors.

    The local server and the command line load only when they are used.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOADED],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    loaded = set(json.loads(done.stdout))
    assert foreign(loaded) - {"livekit"} == set()
    modules = {f"livekit.plugins.tiro.{path.stem}" for path in MODULES}
    modules -= {f"livekit.plugins.tiro.{name}" for name in ("__init__", "__main__")}
    assert {name for name in loaded if name.startswith("livekit.plugins.tiro.")} == modules
    assert not loaded & {"typer", "rich", "av", "pocketsphinx", "pytest"}


def test_the_framework_documents_what_is_public_alone() -> None:
    """LiveKit's documentation is made by pdoc3, which looks here."""
    assert tiro.__pdoc__["testing"] is False and tiro.__pdoc__["cli"] is False
    assert not tiro.__pdoc__.keys() & set(tiro.__all__)
