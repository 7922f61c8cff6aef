"""What the service says, turned into the events of one conversation. No socket.

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
from .replay import wordless_segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .backlog import Backlog
    from .clock import Clock
    from .feed import Feed
    from .protocol import Alternative, Response, Result, Word


class Transcript:
    """The state of the utterance. It lives as long as the stream, whatever the connections do."""

    def __init__(self, clock: Clock, backlog: Backlog, feed: Feed) -> None:
        """Start with nobody speaking.

        Args:
            clock: Asked for times.
            backlog: Told whether somebody speaks; asked whether words may be open.
            feed: Told what is final, and asked where a second of the connection is in the audio.
        """
        self.offset = 0.0
        """Seconds added to all times: where the caller's audio starts on the framework's clock."""
        self.finals = 0
        """How many finals came that had words."""
        self.flush_pending = False
        """Whether somebody waits for a final."""
        self.request_id = ""
        """The id of the connection, on every event."""
        self._clock = clock
        self._backlog = backlog
        self._feed = feed
        self._language = LanguageCode("is-IS")
        self._interim: SpeechData | None = None
        self._interim_id = ""
        self._heard_nothing = 0
        # Of a replay: how many wordless segments are expected before the open hypothesis, how many
        # empty responses were attributed to those, and where the hypothesis ends at the latest.
        self._wordless = self._set_aside = self._hypothesis_ends = 0
        self._heard_until: float | None = None

    @property
    def speaking(self) -> bool:
        """Whether an utterance is open: START was emitted, END was not."""
        return self._backlog.speaking

    def begin(self, request_id: str, feed: Feed) -> None:
        """Go on with a new connection, of which nothing was sent yet."""
        self._hypothesis_ends = max(self._hypothesis_ends, self._feed.heard_to)
        self.request_id, self._feed = request_id, feed
        backlog, start = self._backlog, feed.sent_to
        stop = backlog.open_from if backlog.speaking else 0
        self._wordless = wordless_segments(backlog, start, stop) if stop > start else 0
        self._set_aside = 0

    def set_offset(self, seconds: float) -> None:
        """Add `seconds` to all times from now on.

        Raises:
            ValueError: They are less than 0.
        """
        if seconds < 0:
            raise ValueError(f"start_time_offset must be 0 or more seconds, not {seconds!r}")
        self.offset = seconds

    def set_language(self, tag: str) -> None:
        """Label what follows with `tag`."""
        self._language = event_language(tag)

    # -- from the service ------------------------------------------------------------------------

    def on_response(self, response: Response, now: float) -> list[SpeechEvent]:
        """Return the events that a response gives rise to; an error in it is not looked at.

        Args:
            response: What the service said.
            now: Monotonic seconds.
        """
        if not response.results:
            return [] if response.error or response.event else self._on_nothing_heard(now)
        events: list[SpeechEvent] = []
        hypotheses: list[Result] = []
        for result in response.results:
            if result.is_final:
                # What comes before a final in a frame is its own hypothesis, unless its times
                # say that it follows.
                hypotheses = [shown for shown in hypotheses if _follows(shown, result)]
                events += self._on_final(result, now)
            else:
                hypotheses.append(result)
        decided = any(event.type is SpeechEventType.FINAL_TRANSCRIPT for event in events)
        interims = self._on_interims(hypotheses, now) if hypotheses else []
        # A final with a hypothesis after it is a cut in the middle of speech.
        ended = self._end() if decided and not interims else []
        return [*events, *interims, *ended]

    def _on_nothing_heard(self, now: float) -> list[SpeechEvent]:
        """The segment had no words: replace a shown interim by an empty final.

        That answers a flush if it is about the open hypothesis, or if no audio may hold words. It
        does not if it can be about an earlier pause, a cough before the hypothesis or the start of
        a replay: whoever waits for a final waits on. A hypothesis of the previous connection stands
        until the service has said twice, on whatever connection, that it heard nothing; or three
        times, if somebody waits and the service may not have reached that audio.
        """
        self._feed.found_nothing(now)
        if self._interim is None:
            if self.flush_pending:
                return [] if self._backlog.may_hold_words() else self._answer_flush()
            return []
        is_of_earlier_connection = self._interim_id != self.request_id
        if is_of_earlier_connection and self._wordless:
            if self._feed.heard_before(now) < self._backlog.open_from:
                # It is about a cough before the hypothesis.
                self._wordless -= 1
                self._set_aside += 1
                return []
        self._heard_nothing += 1
        enough = 3 if self.flush_pending and self._feed.ahead(now) > 0 else 2
        if is_of_earlier_connection and self._heard_nothing < enough:
            return []
        return self._take_back()

    def reconsider(self, moment: float) -> list[SpeechEvent]:
        """Count the empty responses set aside, once the service must have come to the hypothesis.

        A fast service can have meant the hypothesis by one of them, and says nothing more.

        Args:
            moment: What was heard by then has its answer; monotonic seconds.
        """
        if not self._set_aside or self._interim is None or self._interim_id == self.request_id:
            return []
        if self._feed.heard_before(moment) < self._hypothesis_ends:
            return []
        self._heard_nothing += self._set_aside
        self._set_aside = 0
        return self._take_back() if self._heard_nothing >= 2 else []

    def _take_back(self) -> list[SpeechEvent]:
        return [self._final([self._data("")]), *self._end()]

    def _on_final(self, result: Result, now: float) -> list[SpeechEvent]:
        best = result.alternatives[0]
        start, end = self._times(result)
        if start is not None and end is not None:
            self._feed.compare_clocks(start, end)
            if self._feed.locate(end) <= self._backlog.finalized_to:
                logger.debug("dropped a final that covers nothing new")
                return []
        edges = () if start is None or end is None else result.edges or [(start, end)]
        alternatives = [self._spoken(item, edges) for item in result.alternatives]
        events = [] if self._backlog.speaking else [self._start(alternatives[0], start)]
        events.append(self._final(alternatives))
        self._feed.finalize(start, end, now)
        self.finals += 1
        logger.debug("final transcript", extra={"lk.pii.transcript": best.text})
        return events

    def _on_interims(self, interims: list[Result], now: float) -> list[SpeechEvent]:
        """Show the hypothesis: its stable part and the unstable part after it are one text."""
        interim = interims[0] if len(interims) == 1 else _joined(interims)
        text = interim.alternatives[0].text
        if not text:
            return []
        data = self._data(text)
        start, end = interim.start, interim.end
        if start is not None and end is not None and self._feed.is_possible(end):
            if not self._feed.hear(end, now):
                return []
            spans = self._feed.spans(interim.edges or [(start, end)])
            self._place(data, spans[0][0], spans[-1][1])
        else:
            # Times that can not be true say nothing; nor does one without the other.
            start = None
        data.confidence = interim.alternatives[0].confidence
        if self._is_behind_shown_hypothesis(data):
            return []
        shown = self._interim
        self._interim, self._interim_id, self._heard_nothing = data, self.request_id, 0
        if shown is not None and shown.text == text:
            return []
        events = [] if self._backlog.speaking else [self._start(data, start)]
        return [*events, self._event(SpeechEventType.INTERIM_TRANSCRIPT, [data])]

    def _is_behind_shown_hypothesis(self, data: SpeechData) -> bool:
        """Tell whether a new connection has yet to catch up with the hypothesis that is shown."""
        shown = self._interim
        if shown is None or self._interim_id == self.request_id:
            return False
        return 0 < data.end_time < shown.end_time

    def _times(self, result: Result) -> tuple[float, float] | tuple[None, None]:
        """Return when a result starts and ends, if it says so and it can be true."""
        if result.start is None or result.end is None or not self._feed.is_possible(result.end):
            return None, None
        return result.start, result.end

    # -- from the stream -------------------------------------------------------------------------

    def flush(self) -> list[SpeechEvent]:
        """Note that somebody waits for a final; if nothing was said, return an empty one."""
        self.flush_pending = True
        return [] if self._backlog.may_hold_words() else self._answer_flush()

    def finish(self) -> list[SpeechEvent]:
        """Close what is open, because nothing more comes: no word that was shown is lost."""
        events = []
        if self._interim is not None:
            events = [self._final([self._interim]), *self._end()]
        return events + (self._answer_flush() if self.flush_pending else [])

    def _answer_flush(self) -> list[SpeechEvent]:
        return [self._final([self._data("")])]

    # -- events ----------------------------------------------------------------------------------

    def _start(self, data: SpeechData, start: float | None) -> SpeechEvent:
        self._backlog.set_speaking(True, 0 if start is None else self._feed.locate(start))
        event = self._event(SpeechEventType.START_OF_SPEECH)
        if data.end_time:
            event.speech_start_time = self._wall(data.start_time - self.offset)
        return event

    def _final(self, alternatives: list[SpeechData]) -> SpeechEvent:
        self._interim = None
        self.flush_pending, self._heard_nothing = False, 0
        return self._event(SpeechEventType.FINAL_TRANSCRIPT, alternatives)

    def _end(self) -> list[SpeechEvent]:
        self._backlog.set_speaking(False)
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

    def _place(self, data: SpeechData, start: float, end: float) -> None:
        """Give the data its times, from seconds of the caller's audio to the framework's."""
        self._heard_until = end
        data.start_time, data.end_time = start + self.offset, end + self.offset

    def _spoken(self, alternative: Alternative, edges: Sequence[tuple[float, float]]) -> SpeechData:
        """Build the data of a final. Unknown times stay 0.0: any other would be believed.

        Args:
            alternative: What was said.
            edges: The times of its first and its last word, or of all of it; empty if unknown.
        """
        data = self._data(alternative.text)
        data.confidence = alternative.confidence
        words = alternative.words
        if not edges:
            # Without times of its own, or with times that can not be true.
            words = tuple(word for word in words if self._feed.is_possible(word.end))
        spans = self._feed.spans([*edges, *[(word.start, word.end) for word in words]])
        if edges:
            self._place(data, spans[0][0], spans[len(edges) - 1][1])
            del spans[: len(edges)]
        if words:
            data.words = self._timed(words, spans)
            data.confidence = data.confidence or sum([w.confidence for w in words]) / len(words)
            tags = {word.speaker for word in words}
            if tags != {0}:
                data.speaker_id = main_speaker(data.words)
        return data

    def _timed(
        self, words: Sequence[Word], spans: Sequence[tuple[float, float]]
    ) -> list[TimedString]:
        offset = self.offset
        return [
            TimedString(
                word.text,
                start_time=start + offset,
                end_time=end + offset,
                confidence=word.confidence or NOT_GIVEN,
                start_time_offset=offset,
                # The service's number; 0 is nobody known.
                speaker_id=str(word.speaker) if word.speaker else None,
            )
            for word, (start, end) in zip(words, spans, strict=True)
        ]

    def _wall(self, seconds: float) -> float | None:
        """Return the epoch seconds at which a second of the caller's audio was heard."""
        recorded = self._clock.recorded_at(seconds)
        # The system's clock may have been set since.
        return None if recorded is None else time.time() - max(0.0, time.monotonic() - recorded)


def event_language(tag: str) -> LanguageCode:
    """Return what events say of the language: the tag without its private part."""
    return LanguageCode(tag.lower().replace("_", "-").partition("-x-")[0])


def main_speaker(words: Sequence[TimedString]) -> str | None:
    """Return who says most of the words whose speaker is known; None if that is none of them."""
    known = [word.speaker_id for word in words if word.speaker_id]
    return Counter(known).most_common(1)[0][0] if known else None


def _joined(interims: list[Result]) -> Result:
    """Make one hypothesis of its parts."""
    first = interims[0].alternatives[0]
    texts = [interim.alternatives[0].text for interim in interims]
    starts = [interim.start for interim in interims if interim.start is not None]
    ends = [interim.end for interim in interims if interim.end is not None]
    start, end = min(starts, default=None), max(ends, default=None)
    edges = sorted(edge for interim in interims for edge in interim.edges)
    is_whole = bool(edges) and (edges[0][0], edges[-1][1]) == (start, end)
    return interims[0]._replace(
        alternatives=(first._replace(text=" ".join(filter(None, texts))),),
        start=start,
        end=end,
        edges=(edges[0], edges[-1]) if is_whole else (),
    )


def _follows(hypothesis: Result, final: Result) -> bool:
    """Tell whether a hypothesis is about words after a final, by the times of both."""
    if hypothesis.start is None or final.end is None:
        return False
    return hypothesis.start >= final.end
