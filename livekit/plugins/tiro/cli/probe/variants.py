"""The same sentence under other conditions: options, rates, pace, two at once, after silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

import numpy as np

from livekit.agents import APIError

from ...options import Options, changed_options
from ...protocol import Result
from ..call import Call, faint_noise
from .lab import (
    LEAD_IN,
    HeardWord,
    Lab,
    Probe,
    Unanswerable,
    check,
    compare,
    hearing_of,
    kind_of,
    name_of,
    words_of,
)
from .report import Row, judged, not_seen
from .sample import RATE, Sample

_RATES = (8000, 24000, 44100, 48000)
# How many readings to ask for.
_ALTERNATIVES = 5
# How many times faster than speech audio is sent. The service counts as faster than speech if it is
# behind by less than this share of the time that sending fast has saved.
_PACE = 4.0
_BEHIND = 0.5
# s of quiet before, between and after the sentences that are sent fast.
_GAP = 1.0
# s to wait for the last final of audio that was sent fast.
_PATIENCE = 20.0
# s to wait for the answer to a ping.
_PONG = 2.0
# s of audio without words: the service gives a segment up after 5 s in which it hears nothing, and
# looks 0.3 s ahead.
_NOTHING = 6.5
# s of digital silence before a sentence, and of lead-in in one message with its first sound.
_DIGITAL = 1.0
_LEAD = 0.3
_MARKS = ".,?!;:"


# -- options ---------------------------------------------------------------------------------------


async def punctuation(lab: Lab) -> AsyncIterator[Row]:
    """Look for marks and capitals: the options ask for them."""
    texts = [each.alternatives[0].text for each in await _finals(lab, lab.options)]
    marked = any(mark in text for text in texts for mark in _MARKS)
    capital = any(letter.isupper() for text in texts for letter in text)
    saw = f"marks: {_yes(marked)}, capitals: {_yes(capital)}"
    otherwise = "punctuate=True has no effect with this language"
    yield judged("punctuation", marked or capital, saw, otherwise, marks=marked, capitals=capital)


async def alternatives(lab: Lab) -> AsyncIterator[Row]:
    """Ask for several readings."""
    options = changed_options(lab.options, {"max_alternatives": _ALTERNATIVES})
    most = max(len(each.alternatives) for each in await _finals(lab, options))
    saw = f"{most} of {_ALTERNATIVES} that were asked for"
    yield judged("alternatives", most > 1, saw, "max_alternatives has no effect", most=most)


async def speakers(lab: Lab) -> AsyncIterator[Row]:
    """Ask for the speakers to be told apart."""
    options = changed_options(lab.options, {"diarization": True, "min_speakers": 1})
    words = [w for each in await _finals(lab, options) for w in each.alternatives[0].words]
    tagged = sum(word.speaker != 0 for word in words)
    saw = f"tags on {tagged} of {len(words)} words"
    otherwise = "diarization=True has no effect: leave it off"
    yield judged("speaker tags", tagged > 0, saw, otherwise, tagged=tagged, of=len(words))


async def _finals(lab: Lab, options: Options) -> list[Result]:
    """Say the sentence with other options, and return the finals.

    Raises:
        Unanswerable: There is none, or the options are refused.
    """
    async with lab.call(options=options) as call:
        await lab.hear(call)
    finals = [r for each in call.finals for r in each.response.results if r.is_final]
    if not finals:
        raise Unanswerable("no final came")
    return finals


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


# -- rates and pace --------------------------------------------------------------------------------


async def rate(lab: Lab, hertz: int) -> AsyncIterator[Row]:
    """Say the sentence at another sample rate."""
    before = lab.needed()
    async with lab.call(rate=hertz) as call:
        heard = await lab.hear(call, rate=hertz)
    found = compare(heard, before)
    otherwise = f"set sample_rate={RATE}: audio of {hertz} Hz is not heard as well"
    yield judged(_question(hertz), found.is_same, str(found), otherwise, **found._asdict())


def _question(hertz: int) -> str:
    return f"{hertz / 1000:g} kHz"


async def fast_audio(lab: Lab) -> AsyncIterator[Row]:
    """Send audio faster than speech, as after a reconnect, and see when it is answered."""
    before = [*lab.needed(), *lab.broken]
    quiet = faint_noise(_GAP, RATE)
    audio = [quiet, lab.sample.whole.samples, quiet, lab.sample.broken.samples, quiet]
    async with lab.call() as call:
        started = time.monotonic()
        await call.send(np.concatenate(audio), pace=_PACE)
        await call.connection.end()
        await call.until_over(_PATIENCE)
        check(call)
        if not call.finals:
            raise Unanswerable("no final came")
    took = call.sent / _PACE
    behind = max(0.0, call.finals[-1].at - started - took)
    found = compare(words_of(call), before)
    lost = found.same < found.wanted
    yield judged(
        "faster than speech",
        behind < _BEHIND * (call.sent - took) and not lost,
        f"{call.sent:.0f} s sent in {took:.1f} s, answered {behind:.1f} s later, "
        f"{found.same} of {found.wanted} words the same",
        "audio that waited for a new connection is not heard as well"
        if lost
        else "catching up after a reconnect takes as long as the audio that waited",
        behind=behind,
        blocked=call.blocked,
        same=found.same,
    )


# -- connections -----------------------------------------------------------------------------------


async def two_at_once(lab: Lab) -> AsyncIterator[Row]:
    """Say the sentence on two connections at the same time."""
    before = lab.needed()
    both = await asyncio.gather(*(_hear_beside(lab) for _ in range(2)))
    refused = [each for each in both if isinstance(each, str)]
    if refused:
        saw = f"{len(refused)} of 2 refused: {refused[0]}"
        yield judged("two at once", False, saw, "one key carries one call at a time", refused=saw)
        return
    same = sum(isinstance(each, list) and compare(each, before).is_same for each in both)
    otherwise = "calls at the same time disturb each other"
    yield judged("two at once", same == 2, f"{same} of 2 heard the same", otherwise, same=same)


async def _hear_beside(lab: Lab) -> list[HeardWord] | str:
    """Say the sentence on one of the two. Return what was heard, or how it was refused."""
    try:
        async with lab.call() as call:
            return await lab.hear(call)
    except APIError as error:
        return kind_of(error)
    except Unanswerable as reason:
        return name_of(call.error) if call.error is not None else str(reason)


async def pings(lab: Lab) -> AsyncIterator[Row]:
    """Ping in the middle of audio, and say how many pings came from the service so far."""
    async with lab.call() as call:
        connection = call.connection
        await call.send(faint_noise(LEAD_IN, RATE))
        sent = time.monotonic()
        connection.ping(1)
        # There is nothing to await: the connection does not announce the answer to a ping.
        while connection.acknowledged_to < 1 and time.monotonic() - sent < _PONG:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        seconds = time.monotonic() - sent
        answered = connection.acknowledged_to == 1
    yield judged(
        "pings",
        answered,
        f"answered after {1000 * seconds:.0f} ms" if answered else f"no answer in {_PONG:.0f} s",
        "a call in which nothing is said is taken for half-open every 13 s, and opened anew",
        seconds=seconds if answered else None,
    )
    every = lab.open_for / lab.pings if lab.pings else None
    yield judged(
        "pings of the service",
        not lab.pings,
        "none" if every is None else f"one every {every:.0f} s",
        "nothing: the plugin answers them",
        pings=lab.pings,
        seconds=lab.open_for,
    )


# -- silence ---------------------------------------------------------------------------------------


async def silence(lab: Lab) -> AsyncIterator[Row]:
    """Send digital silence for longer than a segment without words lasts."""
    yield await _nothing_said(lab, "digital silence", zeros=True)


async def noise(lab: Lab) -> AsyncIterator[Row]:
    """Send faint noise, which passes a voice gate, for as long."""
    yield await _nothing_said(lab, "noise", zeros=False)


async def _nothing_said(lab: Lab, question: str, *, zeros: bool) -> Row:
    samples = faint_noise(_NOTHING, RATE)
    async with lab.call() as call:
        await call.send(np.zeros_like(samples) if zeros else samples)
        during = len(call.answers)
        await call.connection.end()
        await call.until_over(_PONG)
        check(call)
    form = empty_form(call)
    saw = f"{form}: {during} in {_NOTHING:g} s, {len(call.answers) - during} at the end"
    if call.interims or call.finals:
        means = "words are heard where there are none"
        return judged(question, False, "words were heard in it", means, form="words")
    return judged(
        question,
        during == (0 if zeros else 1),
        saw,
        "nothing: an answer without words only says that the service is alive",
        form=form,
        during=during,
        end=len(call.answers) - during,
    )


def empty_form(call: Call) -> str:
    """Return the form in which the service first says that it heard nothing."""
    for answer in call.answers:
        if answer.response.results:
            continue
        if answer.response.event:
            return "an event"
        text = answer.text.replace(" ", "")
        if '"transcript"' in text or '"alternatives"' in text:
            return "a final without text"
        return "no results" if '"results"' in text else "an empty result"
    return "no answer"


async def onset(lab: Lab) -> AsyncIterator[Row]:
    """Start to speak after digital silence: once without lead-in, once with it in one message."""
    first = lab.needed()[0].text
    bare = await _first_word(lab, 0.0) == first
    led = await _first_word(lab, _LEAD) == first
    saw = f"first word without lead-in: {_yes(bare)}, with {1000 * _LEAD:.0f} ms: {_yes(led)}"
    if bare and led:
        # A gate like that of Tiro's published server opens at whatever is not digital silence.
        means = "nothing: a sound that would open a gate at once does not show if there is one"
        yield not_seen("voice gate", saw, means, bare=bare, lead_in=led)
        return
    means = "the first word after digital silence (mute, noise suppression) can be lost"
    yield judged("voice gate", led and not bare, saw, means, bare=bare, lead_in=led)


async def _first_word(lab: Lab, lead_in: float) -> str:
    samples = lab.sample.whole.samples
    start = round(0.05 * RATE)
    async with lab.call() as call:
        await call.send(np.zeros(round(_DIGITAL * RATE), np.int16))
        silent = np.zeros(round(lead_in * RATE), np.int16)
        await call.send_message(np.concatenate((silent, samples[:start])))
        await call.send(samples[start:])
        await call.send(faint_noise(_GAP, RATE))
        await call.connection.end()
        await call.until_over(_PATIENCE)
        check(call)
    heard = words_of(call)
    return heard[0].text if heard else ""


def _fast(sample: Sample) -> float:
    return 3 * _GAP + sample.whole.seconds + sample.broken.seconds


def _onset(sample: Sample) -> float:
    return 2 * (_DIGITAL + sample.whole.seconds + _GAP) + _LEAD


def _twice(sample: Sample) -> float:
    return 2 * hearing_of(sample)


PROBES = (
    Probe(("punctuation",), punctuation, hearing_of),
    Probe(("alternatives",), alternatives, hearing_of),
    Probe(("speaker tags",), speakers, hearing_of),
    *(Probe((_question(hz),), partial(rate, hertz=hz), hearing_of) for hz in _RATES),
    Probe(("faster than speech",), fast_audio, _fast),
    Probe(("two at once",), two_at_once, _twice),
    Probe(("digital silence",), silence, lambda sample: _NOTHING),
    Probe(("noise",), noise, lambda sample: _NOTHING),
    Probe(("voice gate",), onset, _onset),
    Probe(("pings", "pings of the service"), pings, lambda sample: LEAD_IN),
)
