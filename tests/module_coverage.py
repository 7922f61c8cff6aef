"""Whether each module is covered by its own tests: `python -m tests.module_coverage`.

`tests/test_NAME.py` has to run 95 % of the lines and branches of the module NAME by itself; what
other tests run of it by the way is not even measured. The data is that of a run of the whole suite,
in which each file of tests is a context of its own (`tests/conftest.py`): nothing has to run again.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import coverage

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "livekit/plugins/tiro"
# Percent of the lines and branches.
LEAST = 95.0
# Modules without decisions of their own.
EXEMPT = {"__init__", "__main__", "log", "version"}


@dataclass(frozen=True)
class Share:
    """How much of a module its own tests run."""

    module: str
    tests: list[str]
    """The files of its tests."""
    percent: float
    missing: str
    """The lines and branches that are not run."""

    @property
    def is_enough(self) -> bool:
        return self.percent >= LEAST

    def __str__(self) -> str:
        tests = " ".join(self.tests) or "no file of its own"
        return f"{self.percent:5.1f} %  {self.module:26} {tests:26} {self.missing}"


def tests_of(module: Path) -> list[str]:
    """Return the names of the files with a module's own tests.

    Those of `cli/audio.py` are in `test_cli_audio.py`; those of all modules of `cli/page/` are in
    files whose names start with `test_cli_page`, or without the `cli`.
    """
    path = module.relative_to(PACKAGE)
    *parts, stem = path.with_suffix("").parts
    names = ["_".join([*parts, stem]), stem]
    if len(parts) > 1:
        names = [f"{'_'.join(parts)}*", f"{parts[-1]}*"]
    for name in names:
        if found := sorted(path.name for path in TESTS.glob(f"test_{name}.py")):
            return found
    return []


def modules() -> list[Path]:
    """Return the modules that need tests of their own."""
    return sorted(path for path in PACKAGE.rglob("*.py") if path.stem not in EXEMPT)


def share(measured: coverage.Coverage, module: Path) -> Share:
    """Look up how much of a module its own tests ran."""
    name, tests = module.relative_to(PACKAGE).as_posix(), tests_of(module)
    if not tests:
        return Share(name, [], 0.0, "")
    # Modules are imported outside of all tests.
    contexts = [*(f"^{re.escape(file)}$" for file in tests), "^$"]
    report = io.StringIO()
    try:
        percent = measured.report(
            [str(module)], file=report, contexts=contexts, show_missing=True, skip_covered=False
        )
    except coverage.exceptions.NoDataError:
        return Share(name, tests, 0.0, "")
    line = report.getvalue().splitlines()[2]
    return Share(name, tests, percent, line.partition("%")[2].strip())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.module_coverage", description=__doc__)
    parser.add_argument("--data", default=".coverage", help="the data of a run of the whole suite")
    measured = coverage.Coverage(data_file=parser.parse_args().data)
    measured.load()
    shares = sorted((share(measured, module) for module in modules()), key=lambda s: s.percent)
    missing = [each for each in shares if not each.is_enough]
    print(*missing, sep="\n")
    print(f"{len(shares) - len(missing)} of {len(shares)} modules are covered by their own tests")
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
