"""What a probe found out: rows, the table of them, and the JSON for an issue."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...version import __version__
from ..exits import redact

# Characters in a line of a table that is not written to a terminal.
_WIDTH = 118


class Verdict(str, Enum):
    """How an answer compares with what the plugin assumes."""

    AS_ASSUMED = "as assumed"
    DIFFERS = "differs"
    NOT_SEEN = "not seen"
    """It was looked for and did not occur."""
    NOT_MEASURED = "not measured"
    """The probe itself failed."""


_STYLES = {
    Verdict.AS_ASSUMED: "green",
    Verdict.DIFFERS: "yellow",
    Verdict.NOT_SEEN: "dim",
    Verdict.NOT_MEASURED: "red",
}


@dataclass(frozen=True)
class Row:
    """The answer to one question about the service; it holds no word that the service wrote."""

    question: str
    verdict: Verdict
    saw: str
    means: str = ""
    """What follows for users of the plugin; empty if nothing does."""
    values: dict[str, Any] = field(default_factory=dict)
    """What was seen as numbers, for the JSON; in seconds unless the name says otherwise."""


def judged(question: str, as_assumed: bool, saw: str, otherwise: str = "", **values: Any) -> Row:
    """Return a row that is as assumed, or differs.

    Args:
        question: What was asked.
        as_assumed: Whether the answer is what the plugin assumes.
        saw: What was seen.
        otherwise: What it means if it differs.
        values: The numbers.
    """
    verdict = Verdict.AS_ASSUMED if as_assumed else Verdict.DIFFERS
    return Row(question, verdict, saw, "" if as_assumed else otherwise, _rounded(values))


def not_seen(question: str, saw: str, means: str = "", **values: Any) -> Row:
    """Return a row for something that did not occur."""
    return Row(question, Verdict.NOT_SEEN, saw, means, _rounded(values))


def not_measured(question: str, why: str) -> Row:
    """Return a row for a probe that failed."""
    return Row(question, Verdict.NOT_MEASURED, why)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(v, 3) if isinstance(v, float) else v for name, v in values.items()}


@dataclass
class Report:
    """All rows so far, and what they cost."""

    language: str
    sample: str
    """Whose speech is sent: `own`, the package's, or `given`, that of a file."""
    service: str = ""
    """`Tiro's own address` or `another address`; the address itself only if asked for."""
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    """Of audio that was sent."""
    connections: int = 0
    """How many were opened."""
    is_finished: bool = False
    """Whether every probe was made."""

    @property
    def is_measured(self) -> bool:
        """Whether every question has an answer, whatever it is."""
        failed = any(row.verdict is Verdict.NOT_MEASURED for row in self.rows)
        return self.is_finished and not failed

    def as_json(self) -> str:
        """Return the report for an issue: no key, no host unless asked for."""
        document = {
            "plugin": __version__,
            "python": platform.python_version(),
            "service": redact(self.service),
            "language": self.language,
            "sample": self.sample,
            "audio_seconds": round(self.seconds, 1),
            "connections": self.connections,
            "finished": self.is_finished,
            "rows": [_as_dict(row) for row in self.rows],
        }
        return json.dumps(document, ensure_ascii=False, indent=1) + "\n"

    def print(self, console: Console) -> None:
        """Write the table, and what follows from it."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("what was asked", ratio=2)
        table.add_column("verdict", no_wrap=True)
        table.add_column("what was seen", ratio=4)
        for row in self.rows:
            style = _STYLES[row.verdict]
            table.add_row(row.question, Text(row.verdict.value, style=style), Text(redact(row.saw)))
        console.print(table)
        advice = [row for row in self.rows if row.means]
        if advice:
            console.print("What follows:")
        for row in advice:
            console.print(Text(redact(f"- {row.question}: {row.means}")))
        used = f"{self.connections} connections, {self.seconds:.0f} s of audio"
        console.print(Text(f"{_counts(self.rows)}; {used}"))


def console_for(stream: Any) -> Console:
    """Return a console for the table: as wide as the terminal, if it is one."""
    width = None if stream.isatty() else _WIDTH
    return Console(file=stream, width=width, highlight=False)


def _counts(rows: Sequence[Row]) -> str:
    """Say how many rows came to which verdict."""
    counted = ((sum(row.verdict is verdict for row in rows), verdict.value) for verdict in Verdict)
    return ", ".join(f"{count} {verdict}" for count, verdict in counted if count)


def _as_dict(row: Row) -> dict[str, Any]:
    return {
        "question": row.question,
        "verdict": row.verdict.value,
        "saw": redact(row.saw),
        "means": redact(row.means),
        "values": row.values,
    }
