"""The suite itself: each module has a file of tests, and no other is slowed by being measured."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import coverage
import pytest

from . import conftest, module_coverage
from .module_coverage import PACKAGE, modules


def test_each_module_has_tests_of_its_own() -> None:
    assert [path for path in modules() if not module_coverage.tests_of(path)] == []


@pytest.mark.parametrize(
    ("module", "tests"),
    [
        ("feed.py", ["test_feed.py"]),
        ("watch.py", ["test_watch.py"]),
        ("cli/audio.py", ["test_cli_audio.py"]),
        ("cli/doctor.py", ["test_doctor.py"]),
        ("testing/server.py", ["test_server.py"]),
        ("cli/page/render.py", ["test_cli_page.py"]),
        ("cli/probe/lab.py", ["test_probe.py", "test_probe_command.py"]),
        ("nothing.py", []),
    ],
)
def test_where_the_tests_of_a_module_are(module: str, tests: list[str]) -> None:
    assert module_coverage.tests_of(PACKAGE / module) == tests


def test_nothing_is_measured_that_belongs_to_no_module() -> None:
    assert Path(__file__).name not in conftest.MEASURED
    assert coverage.Coverage.current() is None
    assert "coverage" not in repr(type(sys.gettrace()))


@pytest.mark.parametrize(
    ("number", "count", "order"),
    [(0, 1, "abcdefg"), (0, 3, "abcdefg"), (1, 3, "cdefgab"), (2, 3, "efgabcd"), (7, 8, "gabcdef")],
)
def test_each_worker_imports_all_modules_and_its_share_first(
    number: int, count: int, order: str
) -> None:
    assert "".join(conftest.share_first("abcdefg", number, count)) == order


def test_no_process_classifies_all_of_unicode() -> None:
    """As hypothesis does for these, for 5 s of CPU: `support.texts` is there instead."""
    root = Path(__file__).parents[1]
    sources = [*root.glob("tests/**/*.py"), *root.glob("examples/*.py")]
    slow = re.compile(r"\bst\.(text|characters|from_regex|emails)\b\W")
    found = [path.name for path in sources if slow.search(path.read_text(encoding="utf-8"))]
    # It says so itself.
    assert found == ["texts.py"]


def test_what_is_covered_too_little_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without any data, nothing is covered."""
    monkeypatch.setattr(module_coverage, "modules", lambda: [PACKAGE / "feed.py"])
    monkeypatch.setattr("sys.argv", ["module_coverage", "--data", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as ended:
        module_coverage.main()
    assert ended.value.code
    told = capsys.readouterr().out
    assert "  0.0 %  feed.py" in told and "0 of 1 modules are covered" in told
