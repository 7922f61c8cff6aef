"""Which probes are made in which order, what they use up, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from livekit.agents import APIError

from . import hearing, plugin, refusals, variants
from .lab import Lab, Probe, Refused, Unanswerable, kind_of
from .limits import limits
from .report import Report, judged, not_measured
from .sample import Sample

_NOT_TAKEN = "the service does not take this: do without it"


def plan(minutes: float | None) -> list[Probe]:
    """Return the probes, in order: later ones compare with what the call of two sentences heard.

    Args:
        minutes: How long to look for limits of the service; None does not look for them.
    """
    probes = [*refusals.PROBES, *hearing.PROBES, *variants.PROBES, *plugin.PROBES]
    return probes if minutes is None else [*probes, limits(minutes)]


def cost(probes: Sequence[Probe], sample: Sample) -> str:
    """Say what the probes use up at most."""
    seconds = sum(probe.audio(sample) for probe in probes)
    questions = [question for probe in probes for question in probe.questions]
    return f"{len(questions)} questions, up to {seconds:.0f} s of audio"


async def measure(
    lab: Lab, probes: Sequence[Probe], report: Report, show: Callable[[str], None]
) -> None:
    """Make the probes one after the other, and note what they find as soon as it is known.

    Args:
        lab: What the probes work with.
        probes: All of them are made, even where others fail.
        report: Gets the rows.
        show: Told what is being done.
    """
    for number, probe in enumerate(probes, 1):
        show(f"{number} of {len(probes)}: {', '.join(probe.questions)}")
        try:
            await _make(lab, probe, report)
        finally:
            report.seconds, report.connections = lab.used, lab.connections
    report.is_finished = True


async def _make(lab: Lab, probe: Probe, report: Report) -> None:
    """Make one probe. Each question that it leaves open gets a row that says why."""
    answered: set[str] = set()

    async def run() -> None:
        async for row in probe.run(lab):
            answered.add(row.question)
            report.rows.append(row)

    lab.allowed = probe.audio(lab.sample)
    seconds = lab.allowed + probe.waits
    try:
        await asyncio.wait_for(run(), seconds)
        return
    except asyncio.TimeoutError:
        why = f"it did not end within {seconds:.0f} s"
    except APIError as error:
        why = kind_of(error)
    except Refused as refused:
        why = str(refused)
        if refused.is_answer:
            report.rows += [judged(q, False, why, _NOT_TAKEN) for q in _left_of(probe, answered)]
            return
    except Unanswerable as reason:
        why = str(reason)
    except Exception as error:
        why = f"unexpected {type(error).__name__}: please report this"
    report.rows += [not_measured(question, why) for question in _left_of(probe, answered)]


def _left_of(probe: Probe, answered: set[str]) -> list[str]:
    """Return the questions of a probe that have no row."""
    return [question for question in probe.questions if question not in answered]
