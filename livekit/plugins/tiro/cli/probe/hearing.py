"""What one call of two sentences shows: frames, interims, words and times, the endpointer."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from ...endpointer import FLUSH_SILENCE
from ...watch import DRAIN_TIMEOUT
from ..call import Answer, Call, faint_noise
from .lab import LEAD_IN, HeardWord, Lab, Probe, check, words_of
from .report import Row, judged, not_seen
from .sample import RATE, Sample, plain

# s of silence sent at most to get a final; the slowest of the endpointer's rules needs 2 s.
_SILENCE = 6.0
# s of silence, least and most, that the published endpointer and its look-ahead need after a
# sentence.
_ENDPOINT = (0.5, 1.2)
# s, at most, from the first sound to the first interim, and from one interim to the next.
_FIRST_INTERIM = 1.5
_INTERVAL = 0.7
# s that times may differ from the sample's own; where exactly a word begins is open to judgement.
_TRUE_TIMES = 0.25
# Share of the sample's words that a service should hear; not all of them: a machine speaks.
_ENOUGH_WORDS = 0.5
# The events that the service's API definitions name.
_EVENTS = ("END_OF_SINGLE_UTTERANCE", "START_OF_SPEECH", "END_OF_SPEECH", "END_OF_AUDIO")
_UNFILLED = (None, 0, "", "0s")


async def two_sentences(lab: Lab) -> AsyncIterator[Row]:
    """Say a sentence and wait for its final, say one that breaks off and wait again, then end."""
    sample = lab.sample
    async with lab.call() as call:
        await call.send(faint_noise(LEAD_IN, RATE))
        first = await _say(call, sample.whole.samples)
        lab.whole = words_of(call)
        await call.send(faint_noise(LEAD_IN, RATE))
        lab.broken_at = call.sent
        second = await _say(call, sample.broken.samples)
        lab.broken = words_of(call)[len(lab.whole) :]
        check(call)
        await call.connection.end()
        ended = time.monotonic()
        is_over = await call.until_over(DRAIN_TIMEOUT + 1.0)
    for row in _rows_of_frames(call.answers):
        yield row
    for row in _rows_of_interims(call, first):
        yield row
    for row in _rows_of_words(lab):
        yield row
    yield _endpoint_row(first)
    yield _broken_row(second)
    yield _end_row(call, ended, is_over)


class Endpoint(NamedTuple):
    """How a sentence came to its final."""

    began: float
    """When its first sound was sent; monotonic seconds."""
    silence: float | None
    """Seconds of quiet audio sent after the sentence until its final came; None if none came."""


async def _say(call: Call, samples: Any) -> Endpoint:
    """Say something, and send quiet audio until its final comes."""
    began = time.monotonic()
    await call.send(samples)
    before, said = len(call.finals), call.sent

    def is_final() -> bool:
        return len(call.finals) > before

    await call.send(faint_noise(_SILENCE, RATE), until=is_final)
    if not is_final():
        return Endpoint(began, None)
    return Endpoint(began, call.finals[before].sent - said)


# -- frames ----------------------------------------------------------------------------------------


def _rows_of_frames(answers: list[Answer]) -> Iterator[Row]:
    bodies = [body for body in map(_body, answers) if body is not None]
    yield _shape_row(bodies)
    yield _order_row(answers)
    results = [each for body in bodies for each in body.get("results") or ()]
    alternatives = [each for result in results for each in result.get("alternatives") or ()]
    words = [each for alternative in alternatives for each in alternative.get("words") or ()]
    yield _filled_row("confidence", [*alternatives, *words], "events carry it as it is")
    yield _filled_row("stability", results, "nothing: the plugin does not use it")
    yield _events_row([each.response.event for each in answers])


def _body(answer: Answer) -> dict[str, Any] | None:
    """Return the response that a frame holds, undecoded; None if it holds none."""
    with suppress(ValueError, RecursionError, AttributeError):
        body = json.loads(answer.text).get("result")
        return body if isinstance(body, dict) else None
    return None


def _shape_row(bodies: list[dict[str, Any]]) -> Row:
    question = "shape of frames"
    if not bodies:
        return not_seen(question, "no frame came")
    full = all("error" in body and "speechEventType" in body for body in bodies)
    shape = "full: unset fields are there" if full else "sparse: unset fields are left out"
    otherwise = "nothing: the plugin reads both, and mixtures"
    return judged(question, full, shape, otherwise, frames=len(bodies), full=full)


def _order_row(answers: list[Answer]) -> Row:
    question = "results in a frame"
    most = max((len(each.response.results) for each in answers), default=0)
    if not most:
        return not_seen(question, "no results came")
    late = any(
        result.is_final and n for each in answers for n, result in enumerate(each.response.results)
    )
    saw = f"{most} at most" + (", interims before a final" if late else "")
    otherwise = "nothing: the plugin reads several, in both orders"
    return judged(question, most == 1, saw, otherwise, most=most, final_last=late)


def _filled_row(name: str, holders: list[dict[str, Any]], means: str) -> Row:
    if not holders:
        return not_seen(name, "no results came")
    filled = sum(holder.get(name) not in _UNFILLED for holder in holders)
    saw = f"filled in {filled} of {len(holders)}" if filled else "never filled"
    return judged(name, not filled, saw, means, filled=filled, of=len(holders))


def _events_row(events: list[str]) -> Row:
    seen = sorted({event if event in _EVENTS else "another" for event in events if event})
    if not seen:
        return judged("events", True, "none", events=seen)
    otherwise = "nothing: the plugin takes note and waits for results"
    return judged("events", False, ", ".join(seen), otherwise, events=seen)


# -- interims --------------------------------------------------------------------------------------


def _rows_of_interims(call: Call, first: Endpoint) -> Iterator[Row]:
    interims = call.interims
    if not interims:
        means = "no interims: an agent hears nothing before the final"
        yield not_seen("first interim", "none came", means)
        yield not_seen("interval of interims", "none came")
        yield not_seen("words on interims", "none came")
        return
    seconds = interims[0].at - first.began
    slow = "an agent that goes by interims notices speech this late; its VAD is faster"
    saw = f"{seconds:.2f} s after the first sound"
    yield judged("first interim", seconds < _FIRST_INTERIM, saw, slow, seconds=seconds)
    yield _interval_row(call)
    timed = sum(each.response.results[0].start is not None for each in interims)
    yield judged(
        "words on interims",
        timed == len(interims),
        f"with times on {timed} of {len(interims)}",
        "start and end of interims stay 0.0",
        timed=timed,
        of=len(interims),
    )


def _interval_row(call: Call) -> Row:
    question = "interval of interims"
    interims = call.interims
    # From one interim to the next, in the same sentence.
    gaps = [
        later.at - sooner.at
        for sooner, later in pairwise(call.answers)
        if sooner in interims and later in interims
    ]
    if not gaps:
        return not_seen(question, "no two came in one sentence", interims=len(interims))
    seconds = median(gaps)
    return judged(
        question,
        seconds < _INTERVAL,
        f"{seconds:.2f} s (median of {len(gaps)})",
        "hypotheses come seldom; nothing is lost",
        seconds=seconds,
        interims=len(interims),
    )


# -- words -----------------------------------------------------------------------------------------


def _rows_of_words(lab: Lab) -> Iterator[Row]:
    heard = [*lab.whole, *lab.broken]
    if not heard:
        for question in ("words", "times of words"):
            yield not_seen(question, "no final with words came", "try --speech with a recording")
        return
    true = _true_words(lab)
    yield _words_row(heard, true)
    timed = [word for word in heard if word.start is not None]
    if len(timed) < len(heard):
        yield judged(
            "times of words",
            False,
            f"on {len(timed)} of {len(heard)}",
            "the plugin has to guess what a final covers, and events have no times",
            timed=len(timed),
            of=len(heard),
        )
        return
    yield _times_row(heard, true)


def _true_words(lab: Lab) -> list[HeardWord]:
    """Return the words of the sample, at the times at which the call said them."""
    parts = ((LEAD_IN, lab.sample.whole), (lab.broken_at, lab.sample.broken))
    return [
        HeardWord(plain(word.text), at + word.start) for at, part in parts for word in part.words
    ]


def _words_row(heard: list[HeardWord], true: list[HeardWord]) -> Row:
    if not true:
        return judged("words", True, f"{len(heard)} words", heard=len(heard))
    left = [word.text for word in heard]
    found = []
    for word in true:
        if word.text in left:
            left.remove(word.text)
            found.append(word.text)
    return judged(
        "words",
        len(found) >= _ENOUGH_WORDS * len(true),
        f"{len(found)} of the sample's {len(true)}, {len(heard)} in all",
        "the sample is a machine's voice; try --speech with a recording",
        found=found,
        heard=len(heard),
    )


def _times_row(heard: list[HeardWord], true: list[HeardWord]) -> Row:
    starts = {word.text: word.start for word in true}
    # If only a few words match the sample, that may be by chance, and says nothing of the times.
    shifts = [
        word.start - start
        for word in heard
        if word.start is not None and (start := starts.get(word.text)) is not None
    ]
    saw = "on all words"
    if len(shifts) < _ENOUGH_WORDS * len(heard):
        return judged("times of words", True, saw)
    shift = median(shifts)
    return judged(
        "times of words",
        abs(shift) <= _TRUE_TIMES,
        f"{saw}, {round(1000 * shift):+d} ms from the sample's",
        "times of events are off by this much",
        seconds=shift,
    )


# -- endings ---------------------------------------------------------------------------------------


def _endpoint_row(endpoint: Endpoint) -> Row:
    question = "silence to a final"
    silence = endpoint.silence
    if silence is None:
        saw = f"no final within {_SILENCE:.0f} s"
        means = "finals come by flush() alone: use turn_detection='vad' or 'manual'"
        return not_seen(question, saw, means)
    low, high = _ENDPOINT
    otherwise = (
        "turns end late without a flush: use turn_detection='vad'"
        if silence > high
        else "with turn_detection='stt' short pauses end turns: raise min_delay of endpointing"
    )
    saw = f"{silence:.2f} s after a whole sentence"
    return judged(question, low <= silence <= high, saw, otherwise, seconds=silence)


def _broken_row(endpoint: Endpoint) -> Row:
    question = "silence, broken off"
    silence = endpoint.silence
    means = f"the {FLUSH_SILENCE} s of silence of a flush do not bring every final: report this"
    if silence is None:
        return not_seen(question, f"no final within {_SILENCE:.0f} s", means)
    saw = f"{silence:.2f} s after a sentence that breaks off"
    return judged(question, silence <= FLUSH_SILENCE, saw, means, seconds=silence)


def _end_row(call: Call, ended: float, is_over: bool) -> Row:
    question = "how a call ends"
    if not is_over or call.over_at is None:
        return not_seen(question, f"it stays open for {DRAIN_TIMEOUT:.0f} s", "see 'end marker'")
    seconds, code = call.over_at - ended, call.connection.close_code
    how = "dropped" if code is None else f"close frame {code}"
    otherwise = "nothing: the plugin goes by what the service said before the end"
    saw = f"{how}, {seconds:.2f} s after the end marker"
    return judged(question, code is None, saw, otherwise, seconds=seconds, close_code=code)


# -- the end marker, without silence before it -----------------------------------------------------


async def end_marker(lab: Lab) -> AsyncIterator[Row]:
    """Say a sentence, and end the audio with its last sound."""
    whole = lab.needed()
    async with lab.call() as call:
        await call.send(faint_noise(LEAD_IN, RATE))
        await call.send(lab.sample.whole.samples)
        before = len(call.finals)
        await call.connection.end()
        ended = time.monotonic()
        await call.until_over(DRAIN_TIMEOUT + 1.0)
        check(call)
    finals = call.finals[before:]
    yield _marker_row(call, finals, ended)
    if not finals:
        yield not_seen("last word", "no final came")
        return
    last = words_of(call)[-1].text == whole[-1].text
    yield judged(
        "last word",
        not last,
        "heard, with no silence after it" if last else "cut off, with no silence after it",
        "nothing: the silence that the plugin sends before the marker is not needed here",
        heard=last,
    )


def _marker_row(call: Call, finals: list[Answer], ended: float) -> Row:
    question = "end marker"
    values: dict[str, Any] = {
        "final": finals[0].at - ended if finals else None,
        "over": call.over_at - ended if call.over_at is not None else None,
    }
    late = f"a stream ends {DRAIN_TIMEOUT:.0f} s later than it could"
    if not finals and not call.is_over:
        saw = "ignored: no final, and the connection stays"
        return judged(
            question, False, saw, f"this service ignores the end marker: {late}", **values
        )
    if not finals:
        saw = f"hung up after {values['over']:.2f} s, without a final"
        means = "words without silence after them are lost; the plugin sends silence first"
        return judged(question, False, saw, means, **values)
    saw = f"final after {values['final']:.2f} s"
    if not call.is_over:
        return judged(question, False, f"{saw}, but the connection stays", late, **values)
    return judged(question, True, f"{saw}, end after {values['over']:.2f} s", **values)


def _two_sentences(sample: Sample) -> float:
    return 2 * (LEAD_IN + _SILENCE) + sample.whole.seconds + sample.broken.seconds


PROBES = (
    Probe(
        (
            *("shape of frames", "results in a frame", "confidence", "stability", "events"),
            *("first interim", "interval of interims", "words on interims"),
            *("words", "times of words"),
            *("silence to a final", "silence, broken off", "how a call ends"),
        ),
        two_sentences,
        _two_sentences,
    ),
    Probe(("end marker", "last word"), end_marker, lambda sample: LEAD_IN + sample.whole.seconds),
)
