"""`python -m benchmarks`: measure everything, print tables, write results and pictures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import report
from .plan import FULL, QUICK
from .progress import open_console, progress
from .run import Bench

_HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four minutes, to see that it works")
    parser.add_argument("--output", type=Path, help="the folder to write to")
    parser.add_argument("--again", action="store_true", help="only show the results that are there")
    arguments = parser.parse_args()
    console = open_console()
    folder = arguments.output or (_HERE / "quick" if arguments.quick else _HERE)
    folder.mkdir(exist_ok=True)
    if arguments.again:
        results = json.loads((folder / "results.json").read_text())
    else:
        with progress(console) as say:
            results = Bench(QUICK if arguments.quick else FULL, say).run()
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report.show(results, console)
    if arguments.again:
        return
    # Not above: to look at results, nobody needs matplotlib.
    from . import picture

    for path in picture.draw(results, folder):
        console.print(f"wrote {path}")


if __name__ == "__main__":
    main()
