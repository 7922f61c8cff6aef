"""What the service says, turned into the events of one conversation; no I/O.

START, then interims and finals, then END, strictly alternating, over any number of connections.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from livekit.agents import LanguageCode
from livekit.agents.stt import SpeechData, SpeechEvent, SpeechEventType
from livekit.agents.types import NOT_GIVEN, TimedString

from .log import logger

if TYPE_CHECKING:
    from .protocol import Alternative, Response, Result, Word
    from .timeline import Clock, Timeline


class Transcript:
    """The state of the utterance. It lives as long as the stream, whatever the connections do."""

    def __init__(self, timeline: Timeline, clock: Clock) -> None:
        """Start with nobody speaking.

        Args:
            timeline: Told what is final and whether somebody speaks; asked for times.
            clock: Asked for the wall-clock time of the audio.
        """
        self.offset = 0.0
        """Seconds added to all times: where the caller's audio starts on the framework's clock."""
        self.request_id = ""
        """The id of the connection, on every event."""
        self.finals = 0
        """How many finals came that had words."""
        self._timeline = timeline
        self._clock = clock
        self._language = LanguageCode("is-IS")
        self._interim: SpeechData | None = None
        self._interim_id = ""
        self._heard_until: float | None = None
        self._flush_owed = False

    def set_language(self, tag: str) -> None:
        """Label what follows with `tag`, without its private part."""
        self._language = LanguageCode(tag.lower().partition("-x-")[0])

    @property
    def speaking(self) -> bool:
        """Whether an utterance is open: START was emitted, END was not."""
        return self._timeline.speaking

    # -- from the service ------------------------------------------------------------------------

    def on_response(self, response: Response, now: float) -> list[SpeechEvent]:
        """Return the events that a response gives rise to; an error in it is not looked at.

        Args:
            response: What the service said.
            now: Monotonic seconds.
        """
        results = response.results
        hypotheses = [result for result in results if not result.is_final]
        # Times tell what is decided; where there are none, it has to be guessed.
        if not (hypotheses or response.error or any(result.end is not None for result in results)):
            self._timeline.decide(now)
        if not results:
            return [] if response.error else self._on_nothing_heard()
        finals: list[SpeechEvent] = []
        for result in results:
            if result.is_final:
                finals += self._on_final(result)
        interims = self._on_interims(hypotheses) if hypotheses else []
        # A final with a hypothesis behind it is a cut in the middle of speech.
        ended = self._end() if finals and not interims and self.speaking else []
        return [*finals, *interims, *ended]

    def _on_nothing_heard(self) -> list[SpeechEvent]:
        """A segment ended without a word in it: what was shown of it is taken back."""
        noticed = self._interim is not None or self._flush_owed
        events = [self._final([self._data("")])] if noticed else []
        return [*events, *self._end()] if self.speaking else events

    def _on_final(self, result: Result) -> list[SpeechEvent]:
        best = result.alternatives[0]
        if result.end is not None and self._timeline.is_covered(result.end):
            logger.debug("dropped a final that covers nothing new")
            return []
        if not best.text:
            return self._on_nothing_heard()
        events = [] if self.speaking else [self._start(result)]
        alternatives = [self._spoken(alternative, result) for alternative in result.alternatives]
        events.append(self._final(alternatives))
        self._timeline.cover(result.end)
        self.finals += 1
        logger.debug("final transcript", extra={"lk.pii.transcript": best.text})
        return events

    def _on_interims(self, interims: list[Result]) -> list[SpeechEvent]:
        """Show the hypothesis: the stable part and the unstable one behind it are one text."""
        text = " ".join(filter(None, [result.alternatives[0].text for result in interims]))
        if not text:
            return []
        starts = [result.start for result in interims if result.start is not None]
        ends = [result.end for result in interims if result.end is not None]
        data = self._data(text)
        if starts and ends:
            end = max(ends)
            if self._timeline.is_covered(end):
                return []
            data.start_time, data.end_time = self._span(min(starts), end)
        data.confidence = interims[0].alternatives[0].confidence
        if self._hears_less(data):
            return []
        shown = self._interim
        self._interim, self._interim_id = data, self.request_id
        if shown is not None and shown.text == text:
            return []
        events = [] if self.speaking else [self._start(interims[0])]
        return [*events, self._event(SpeechEventType.INTERIM_TRANSCRIPT, [data])]

    def _hears_less(self, data: SpeechData) -> bool:
        """Tell whether a new connection has yet to catch up with the hypothesis that is shown."""
        shown = self._interim
        if shown is None or self._interim_id == self.request_id:
            return False
        return 0 < data.end_time < shown.end_time

    @property
    def flush_owed(self) -> bool:
        """Whether somebody waits for a final."""
        return self._flush_owed

    # -- from the stream -------------------------------------------------------------------------

    def flush(self) -> None:
        """Note that somebody waits for a final."""
        self._flush_owed = True

    def give_up_flush(self) -> list[SpeechEvent]:
        """Answer a flush that the service has nothing to say to: one empty final."""
        return [] if self.speaking else self._pay_flush()

    def finish(self) -> list[SpeechEvent]:
        """Close what is open, because nothing more comes: no word that was shown is lost."""
        events = []
        if self._interim is not None:
            events = [self._final([self._interim])]
        if self.speaking:
            events += self._end()
        return events + self._pay_flush()

    def _pay_flush(self) -> list[SpeechEvent]:
        return [self._final([self._data("")])] if self._flush_owed else []

    # -- events ----------------------------------------------------------------------------------

    def _start(self, result: Result) -> SpeechEvent:
        self._timeline.speaking = True
        event = self._event(SpeechEventType.START_OF_SPEECH)
        if result.start is not None and result.end is not None:
            event.speech_start_time = self._wall(self._timeline.span(result.start, result.end)[0])
        return event

    def _final(self, alternatives: list[SpeechData]) -> SpeechEvent:
        self._interim = None
        self._flush_owed = False
        return self._event(SpeechEventType.FINAL_TRANSCRIPT, alternatives)

    def _end(self) -> list[SpeechEvent]:
        self._timeline.speaking = False
        event = self._event(SpeechEventType.END_OF_SPEECH)
        if self._heard_until is not None:
            event.speech_end_time = self._wall(self._heard_until)
            self._heard_until = None
        return [event]

    def _event(
        self, kind: SpeechEventType, alternatives: list[SpeechData] | None = None
    ) -> SpeechEvent:
        return SpeechEvent(kind, self.request_id, alternatives or [])

    def _data(self, text: str) -> SpeechData:
        return SpeechData(self._language, text)

    def _span(self, start: float, end: float) -> tuple[float, float]:
        """Turn seconds of the connection into the framework's."""
        first, last = self._timeline.span(start, end)
        self._heard_until = last
        return first + self.offset, last + self.offset

    def _spoken(self, alternative: Alternative, result: Result) -> SpeechData:
        """Build the data of a final. Unknown times stay 0.0: any other would be believed."""
        data = self._data(alternative.text)
        if result.start is not None and result.end is not None:
            data.start_time, data.end_time = self._span(result.start, result.end)
        data.confidence = alternative.confidence
        if alternative.words:
            words = alternative.words
            data.words = [self._timed(word) for word in words]
            data.confidence = data.confidence or sum(w.confidence for w in words) / len(words)
            data.speaker_id = _speaker(Counter(w.speaker for w in words).most_common(1)[0][0])
        return data

    def _timed(self, word: Word) -> TimedString:
        start, end = self._timeline.span(word.start, word.end)
        return TimedString(
            word.text,
            start_time=start + self.offset,
            end_time=end + self.offset,
            confidence=word.confidence or NOT_GIVEN,
            start_time_offset=self.offset,
            speaker_id=_speaker(word.speaker),
        )

    def _wall(self, seconds: float) -> float | None:
        """Return the epoch seconds at which a second of the caller's audio was heard."""
        wall = self._clock.wall(seconds)
        return None if wall is None else min(wall, time.time())


def _speaker(tag: int) -> str | None:
    """Name a speaker by the service's number; 0 is nobody known."""
    return str(tag) if tag else None
