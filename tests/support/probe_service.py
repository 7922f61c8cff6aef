"""A service that recognises the sample of `probe`, and variants of it that behave differently."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from aiohttp import WSMsgType

from livekit.plugins.tiro.cli.probe.lab import LEAD_IN, HeardWord, Lab, Probe
from livekit.plugins.tiro.cli.probe.plan import measure, plan
from livekit.plugins.tiro.cli.probe.report import Report, Row, Verdict
from livekit.plugins.tiro.cli.probe.sample import RATE, Utterance, own_sample, plain
from livekit.plugins.tiro.options import Options
from livekit.plugins.tiro.reach import new_http_session
from livekit.plugins.tiro.testing import ConnectionRecord, Drop, HandshakeRefusal, Hooks, TiroServer
from livekit.plugins.tiro.testing.recognizer import Hypothesis, Word, variant
from livekit.plugins.tiro.testing.wire import SpeechConfig, StatusError

from . import virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from livekit.plugins.tiro.cli.call import Samples

T = TypeVar("T")

KEY = "lykill-sem-enginn-a-ad-sja"
SAMPLE = own_sample()
# Samples; 20 ms.
_FRAME = 320
_LOUD = 300.0
# Samples of speech that tell where in the sample they are from; 0.5 s, as both sentences have
# a word in common.
_WINDOW = 8000
# Frames of quiet at the start of a segment that keep its first word from being cut; 0.1 s.
_LEAD = 5

Cuts = Literal["never", "without lead-in", "always"]


class SampleRecognizer:
    """A factory of recognitions that know the sample of `probe`, and nothing else.

    Args:
        slow_ending: More seconds of silence before a final after the sentence that breaks off.
        cuts: When the first word of a segment is lost.
        tags: Whether speakers are told apart if asked for.
        readings: How many alternatives there are at most.
        marks: Whether there is punctuation if asked for.
        forgets: Sample rates at which nothing is heard after the third word.
    """

    def __init__(
        self,
        *,
        slow_ending: float = 0.0,
        cuts: Cuts = "never",
        tags: bool = True,
        readings: int = 30,
        marks: bool = True,
        forgets: Sequence[int] = (),
    ) -> None:
        self.slow_ending = slow_ending
        self.cuts = cuts
        self.tags = tags
        self.readings = readings
        self.marks = marks
        self.forgets = forgets

    def __call__(self, config: SpeechConfig) -> SampleRecognition:
        """Open a connection's recognition."""
        return SampleRecognition(self, config)


class SampleRecognition:
    """What is heard on one connection."""

    blocking = False

    def __init__(self, kind: SampleRecognizer, config: SpeechConfig) -> None:
        self._kind = kind
        self._config = config
        self._reset()

    def _reset(self) -> None:
        self._samples: Samples = np.zeros(0, np.int16)
        self._loud: list[int] = []
        self._measured = 0
        self._start: float | None = None
        self._found: tuple[Utterance, float] | None = None
        self._is_placed = False

    def feed(self, samples: Samples, start: float) -> None:
        """Find out what is being said, as soon as there is enough of it."""
        if self._start is None:
            self._start = start
        self._samples = np.concatenate((self._samples, samples))
        self._measure()
        if not self._is_placed and self._loud:
            onset = self._loud[0] * _FRAME
            if len(self._samples) >= onset + _WINDOW:
                self._is_placed = True
                self._found = _place(self._samples[onset : onset + _WINDOW], onset / RATE)

    def silence(self) -> float | None:
        """Seconds since the last loud frame."""
        if not self._loud:
            return None
        frames = self._measured - 1 - self._loud[-1]
        broken = self._found is not None and self._found[0] is SAMPLE.broken
        return max(0.0, frames * _FRAME / RATE - (self._kind.slow_ending if broken else 0.0))

    def partial(self) -> Hypothesis:
        """The words that are over."""
        return self._words()

    def final(self, alternatives: int) -> Sequence[Hypothesis]:
        """The words of the segment."""
        words = self._words()
        self._reset()
        count = min(alternatives, self._kind.readings)
        return [variant(words, n) for n in range(count)] if words else []

    def close(self) -> None:
        """Nothing to give back."""

    def _measure(self) -> None:
        """Note which of the new frames are loud."""
        count = len(self._samples) // _FRAME
        new = self._samples[self._measured * _FRAME : count * _FRAME].astype(np.float64)
        levels = np.sqrt(np.mean(new.reshape(-1, _FRAME) ** 2, axis=1))
        self._loud += (np.flatnonzero(levels > _LOUD) + self._measured).tolist()
        self._measured = count

    def _words(self) -> Hypothesis:
        if self._found is None or self._start is None:
            return ()
        utterance, begin = self._found
        speaker = 1 if self._kind.tags and self._config.diarization else 0
        at, heard = self._start + begin, len(self._samples) / RATE - begin
        words = [
            Word(self._spell(word.text, n), at + word.start, at + word.end, speaker)
            for n, word in enumerate(utterance.words)
            if at + word.start > -0.05 and word.end <= heard + 0.05
        ]
        if self._config.sample_rate in self._kind.forgets:
            del words[3:]
        return tuple(words[1:] if self._is_cut() else words)

    def _is_cut(self) -> bool:
        cuts = self._kind.cuts
        led = bool(self._loud) and self._loud[0] >= _LEAD
        return cuts == "always" or (cuts == "without lead-in" and not led)

    def _spell(self, text: str, number: int) -> str:
        punctuated = self._kind.marks and self._config.punctuation
        return text if punctuated else text.lower()


def _places() -> list[tuple[Utterance, Any, Any]]:
    """Return each utterance, its samples with a frame in front, and their spectrum."""
    # A piece starts with a whole frame, so up to one frame before its first sound.
    both = (SAMPLE.whole, SAMPLE.broken)
    padded = [np.pad(each.samples.astype(np.float64), (_FRAME, 0)) for each in both]
    return [(u, p, np.fft.rfft(p, _SIZE)) for u, p in zip(both, padded, strict=True)]


# Samples; more than the longest utterance and a piece have together.
_SIZE = 80_000
_PLACES = _places()


def _place(window: Samples, onset: float) -> tuple[Utterance, float] | None:
    """Return the utterance that a piece is from, and when it began; None if it is not known."""
    best: tuple[float, Utterance, float] | None = None
    piece = window.astype(np.float64)
    spectrum = np.conj(np.fft.rfft(piece, _SIZE))
    for utterance, whole, known in _PLACES:
        scores = np.fft.irfft(known * spectrum, _SIZE)[: len(whole) - len(piece)]
        at = int(np.argmax(scores))
        likeness = scores[at] / (
            np.linalg.norm(piece) * np.linalg.norm(whole[at : at + len(piece)]) + 1.0
        )
        if best is None or likeness > best[0]:
            best = likeness, utterance, onset - (at - _FRAME) / RATE
    return None if best is None or best[0] < 0.6 else best[1:]


# -- other services --------------------------------------------------------------------------------


class Rewritten(Hooks):
    """Frames are changed.

    Args:
        change: Gets the `result` object of each frame, and changes it.
    """

    def __init__(self, change: Callable[[dict[str, Any]], None]) -> None:
        self._change = change

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        document = json.loads(text) if text.startswith("{") else {}
        if "result" not in document:
            return text
        self._change(document["result"])
        return json.dumps(document, ensure_ascii=False)


def each_alternative(change: Callable[[dict[str, Any], bool], None]) -> Rewritten:
    """Return the hooks that change each alternative; the change is told whether it is final."""

    def rewrite(body: dict[str, Any]) -> None:
        for result in body.get("results") or ():
            for alternative in result["alternatives"]:
                change(alternative, bool(result.get("isFinal")))

    return Rewritten(rewrite)


class BadKeys(Hooks):
    """A service that refuses wrong keys in a way of its own."""

    def __init__(
        self, how: Literal["handshake", "drop", "close", "stay"], status: int = 401
    ) -> None:
        self._how = how
        self._status = status

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        bad = connection.token != KEY and self._how == "handshake"
        return HandshakeRefusal(self._status, f"no entry for {connection.token}") if bad else None

    async def first_message(self, connection: ConnectionRecord) -> None:
        if connection.token == KEY or self._how == "handshake":
            return
        if self._how == "stay":
            await connection.line.wait_until_lost()
        if self._how == "close":
            await connection.line.send_close(1008, f"no entry for {connection.token}")
        raise Drop


class Deaf(Hooks):
    """No frame comes, but errors."""

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        return text if '"error":{' in text else None


class Unpunctual(Hooks):
    """Audio is taken no faster than at the pace of speech."""

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        await asyncio.sleep(len(pcm) / 2 / connection.sample_rate)


class OneCall(Hooks):
    """A second call at the same time is refused.

    Args:
        how: At the handshake, or by a frame.
    """

    def __init__(self, how: Literal["handshake", "frame"]) -> None:
        self._how = how
        self._busy: ConnectionRecord | None = None

    def _is_busy(self, connection: ConnectionRecord) -> bool:
        if self._busy in (None, connection) or self._busy.closed.is_set():
            self._busy = connection
            return False
        return True

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        refused = self._how == "handshake" and self._is_busy(connection)
        return HandshakeRefusal(429) if refused else None

    async def first_message(self, connection: ConnectionRecord) -> None:
        if self._how == "frame" and self._is_busy(connection):
            raise StatusError(8, f"one call for {connection.token}")


class NoPongs(Hooks):
    """Pings are not answered."""

    async def opened(self, connection: ConnectionRecord) -> None:
        async def nothing(data: bytes) -> None: ...

        setattr(connection.line, "pong", nothing)  # noqa: B010


class OwnPings(Hooks):
    """The service sends pings.

    Args:
        every: Seconds between them.
    """

    def __init__(self, every: float) -> None:
        self._every = every

    async def beside(self, connection: ConnectionRecord) -> None:
        while True:
            await asyncio.sleep(self._every)
            await connection.line._write(b"", WSMsgType.PING)


class Says(Hooks):
    """Sends a frame of its own at the end marker."""

    def __init__(self, frame: str) -> None:
        self._frame = frame

    async def end(self, connection: ConnectionRecord) -> None:
        await connection.line.send(self._frame)


# -- asking ----------------------------------------------------------------------------------------


def true_words(utterance: Utterance, at: float) -> list[HeardWord]:
    """Return the words of an utterance that begins at a second."""
    return [HeardWord(plain(word.text), at + word.start) for word in utterance.words]


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run it, without the checks of asyncio's debug mode, which take half the time."""
    return virtual.run(main, debug=False)


def ask(
    question: str,
    *,
    recognizer: SampleRecognizer | None = None,
    limits: float | None = None,
    knows: bool = True,
    **server: Any,
) -> dict[str, Row]:
    """Make the probe that answers a question against a service, and return its rows.

    Args:
        question: One of its questions.
        recognizer: What hears the audio; else one that hears all.
        limits: Minutes.
        knows: Whether the first call has heard the sample; it is not made for this.
        server: Arguments of `TiroServer`.
    """
    (probe,) = [probe for probe in plan(limits) if question in probe.questions]
    settings = {"api_key": KEY, "recognizers": {"is": recognizer or SampleRecognizer()}, **server}
    rows = in_virtual_time(_ask(probe, knows, settings))
    assert tuple(row.question for row in rows) == probe.questions
    for row in rows:
        for secret in (KEY, "127.0.0.1", "no entry", "one call for"):
            assert secret not in f"{row}", "what the service says is not passed on"
        assert "unexpected" not in row.saw, row
    return {row.question: row for row in rows}


async def _ask(probe: Probe, knows: bool, settings: dict[str, Any]) -> list[Row]:
    async with TiroServer(**settings) as server:
        options = Options(api_key=KEY, base_url=server.base_url)
        report = Report("is-IS", "own")
        async with new_http_session(options.url) as http:
            lab = Lab(http, options, SAMPLE)
            if knows:
                lab.broken_at = LEAD_IN + SAMPLE.whole.seconds + 1.0
                lab.whole = true_words(SAMPLE.whole, LEAD_IN)
                lab.broken = true_words(SAMPLE.broken, lab.broken_at)
            await measure(lab, [probe], report, lambda line: None)
        received = sum(connection.seconds for connection in server.connections)
        assert received <= report.seconds + 0.01, "what was used is said"
        assert report.seconds <= probe.audio(SAMPLE) + 0.01, "and no more than was said before"
        heard = [connection for connection in server.connections if connection.speech]
        assert len(heard) <= report.connections
    assert report.is_finished
    return report.rows


def verdict(row: Row) -> str:
    """Return the verdict in words."""
    return row.verdict.value


NOT_MEASURED = Verdict.NOT_MEASURED.value
