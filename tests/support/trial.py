"""One stream against one server with faults: what was said, what was heard, and what went wrong.

The promise that every trial is held to is in `Outcome.broken`.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import aiohttp

from livekit.agents import APIConnectOptions, APIError
from livekit.agents.stt import SpeechEvent, STTError
from livekit.plugins import tiro
from livekit.plugins.tiro.backlog import KEEP_AT_MOST
from livekit.plugins.tiro.testing import ConnectionRecord, Hooks, TiroServer
from livekit.plugins.tiro.testing.faults import Combined, Fault

from .harness import (
    END,
    FINAL,
    INTERIM,
    START,
    USAGE,
    assert_alternating,
    frames,
    until,
    usage,
    words,
)
from .numbered import RATE, SECONDS, NumberedRecognizer, Spoken, Talk
from .trouble import AtTheEnd, NewKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from livekit import rtc
    from livekit.agents.stt import SpeechEvent, STTError

    from .proxy import Proxy

KEY = "test"
# s; what the README promises of the times of words.
TIME_ERROR = 0.06
# s of speech, after which it is cut at a breath at the earliest.
_SHORTEST_MONOLOGUE = 8.0
# s of live audio after the talk, after which a stream that did not finish the talk counts as deaf.
PATIENCE = 90.0
# s of that audio, enough for nearly all streams: to make all of it would take a while.
_SHORT_PATIENCE = 5.0
# s; no retry budget of these trials is longer.
LONGEST = 240.0
# Bytes; only the silence of a flush has messages of zeros as long as this.
_SILENCE_PIECE = RATE // 4 * 2
# s of silence in one place: a flush that is made twice, or once the longer silence by which the
# service is asked whether there is no word.
_LONGEST_SILENCE = 6.5
# Bytes: 64 KiB, above which a socket counts as full; 256 KiB, after which aiohttp checks whether it
# is; and a message.
FULL_SOCKET = 345_000
# Part of the message of an error that is a mistake of the plugin.
_OWN_FAULT = "Please report it"
# s within which a stream ends whose words were all heard. A dead peer is noticed within 15 s. While
# the noise of the line is not known, the service is asked three times whether it holds words, with
# 6 s of silence each; a service at half the pace of speech takes twice as long for that, and its
# answers may be late too.
_LONGEST_DRAIN = 150.0
# s within which events come that need no answer of the service.
_AT_ONCE = 0.05
# s for which the framework waits for the answer to a flush.
_IN_TIME = 2.0
# s of quiet; with such a pause before words that were heard, the noise of the line is known.
CALM = 0.5
_FASTEST_CLOCK = 1.06
_SAMPLE = 1 / RATE
# s for which the microphone is off after the answer to a press: more than `clock.PAUSE`.
_BETWEEN_PRESSES = 1.5


class Watch(Hooks):
    """Notes when audio flows on each connection, and how much of it is a flush's silence."""

    def __init__(self) -> None:
        self.flowing: dict[int, float] = {}
        self.silence: Counter[int] = Counter()

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        self.flowing.setdefault(connection.number, asyncio.get_running_loop().time())
        if len(pcm) >= _SILENCE_PIECE and not any(pcm):
            self.silence[connection.number] += len(pcm)


@dataclass
class Flush:
    """A flush of the caller's, or several in a row."""

    at: float
    """Seconds of the loop's clock."""
    events: int
    """How many events there were before."""
    said: int
    """How many words were said."""
    open: list[str]
    """The words that were said and not yet final."""
    is_calm: bool
    """Whether the plugin could tell that nothing is open: it knew the noise of the quiet line."""


@dataclass
class Change:
    """A change of the options."""

    at: float
    """Seconds of the loop's clock."""
    number: int
    """What the config has to say from then on."""
    open: list[str]
    """The words that were said and not yet final."""


@dataclass(frozen=True)
class Expected:
    """What a trial is judged by besides its words."""

    unseen: bool = False
    """Whether no error may be reported."""
    time_error: float = TIME_ERROR
    """Seconds by which the times of words may be off."""
    prompt: bool = False
    """Whether nothing goes wrong, so that every answer has to come in time."""
    most_connections: float = math.inf
    """How many connections there may be at most."""
    most_waiting: int = FULL_SOCKET
    """Bytes that may wait for room in the socket."""
    unbroken: bool = False
    """Whether no cut in the middle of speech may be shown as the end of the speech."""
    latest_final: float = math.inf
    """Seconds from the end of a word, said live, by which it has to be final."""


@dataclass
class Outcome:
    """What became of a stream."""

    said: Talk
    events: list[SpeechEvent] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    """When each event came, seconds of the loop's clock."""
    error: BaseException | None = None
    reported: list[STTError] = field(default_factory=list)
    """The error events of the STT."""
    connections: list[ConnectionRecord] = field(default_factory=list)
    flowing: dict[int, float] = field(default_factory=dict)
    muted: list[tuple[float, float]] = field(default_factory=list)
    """From when until when the microphone was muted, seconds of the loop's clock."""
    began: float = 0.0
    """When the first audio was pushed, seconds of the loop's clock."""
    pushed: float = 0.0
    """Seconds of audio."""
    seconds: float = 0.0
    """How long the whole trial took."""
    pauses: dict[float, float] = field(default_factory=dict)
    """After how many seconds of audio the microphone was muted, and for how many seconds."""
    given_up: float = 0.0
    """Seconds of audio that the plugin gave up after a minute without an answer, as it told."""
    deaf: bool = False
    """Whether words were missing long after they were said."""
    timed: bool = True
    """Whether the service gives times; without, words can be heard again after a drop."""
    takes_back: bool = False
    """Whether the service says of hypotheses that there was no word."""
    expected: Expected = Expected()
    flushed: list[Flush] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    open_after_mutes: list[str] = field(default_factory=list)
    """Words that were not final when the mute after them was over."""
    silence: Counter[int] = field(default_factory=Counter)
    """Bytes of a flush's silence on each connection."""
    drained_in: float = 0.0
    """How long a live stream took from the end of its input to its end, seconds."""
    stuffed: int = 0
    """The most bytes that waited for room in the socket."""

    @property
    def heard(self) -> list[str]:
        heard = words(self.events)
        if self.timed:
            return heard
        # Where the service gives no times, words can be said again after a drop, in whole or part.
        return list(dict.fromkeys(word.removeprefix("#") for word in heard))

    @property
    def due(self) -> list[str]:
        """The words that have to be final: all but those in audio that was given up."""
        heard, left = set(self.heard), self.given_up
        due = []
        for word in self.said.words:
            if word.text not in heard and word.end < self.pushed - KEEP_AT_MOST:
                left -= word.end - word.start
                if left >= 0:
                    continue
            due.append(word.text)
        return due

    @property
    def is_exact(self) -> bool:
        """Whether each word that is due is final once, in order."""
        return self.error is None and self.heard == self.due

    @property
    def lost(self) -> int:
        return len(set(self.due) - set(self.heard))

    @property
    def doubled(self) -> int:
        return len(self.heard) - len(set(self.heard))

    @property
    def time_error(self) -> float:
        """The worst of the times of the words that are final, seconds."""
        spoken = {word.text: word for word in self.said.words}
        worst = 0.0
        for event in self.events:
            for word in (event.type is FINAL and event.alternatives[0].words) or ():
                true = spoken.get(str(word))
                start, end = word.start_time, word.end_time
                if not self.timed:
                    continue
                if true is None or not isinstance(start, float) or not isinstance(end, float):
                    return math.inf
                muted = sum(length for at, length in self.pauses.items() if at <= true.start)
                worst = max(worst, abs(start - muted - true.start), abs(end - muted - true.end))
        return worst

    def silence_after(self, fault: Fault) -> float:
        """The longest time from a strike of a fault until audio flowed on a later connection, s.

        A strike while the microphone was muted does not count.
        """
        gaps = [0.0]
        for number, struck in fault.struck.items():
            later = [at for n, at in self.flowing.items() if n > number]
            if later and not any(
                start <= min(later) and struck <= end for start, end in self.muted
            ):
                gaps.append(min(later) - struck)
        return max(gaps)

    def broken(self) -> str:
        """Say which promise was not kept, or nothing."""
        if self.error is not None and not isinstance(self.error, APIError):
            return f"not an APIError: {self.error!r}"
        if self.deaf:
            return f"deaf: heard {self.heard}"
        if self.error is None and self.heard != self.due:
            return f"heard {self.heard}"
        # With an error, a first part of the talk was heard; its last word may be a hypothesis.
        whole = self.heard if self.error is None else self.heard[:-1]
        if whole != self.due[: len(whole)]:
            return f"heard {self.heard} before {self.error!r}"
        if self.error is None and self.time_error > self.expected.time_error:
            return f"times are wrong by {self.time_error:.3f} s"
        if usage(self.events) > self.pushed + 0.001:
            return f"usage {usage(self.events):.2f} s of {self.pushed:.2f} s"
        if self.expected.unseen and self.reported:
            return f"errors were reported: {self.reported}"
        return (
            self._own_fault()
            or self._wrong_events()
            or self._wrong_flush()
            or self._not_done()
            or self._too_much()
        )

    def _own_fault(self) -> str:
        """Say which reported error is a mistake of the plugin, or nothing."""
        own = [str(each.error) for each in self.reported if _OWN_FAULT in str(each.error)]
        return own[0] if own else ""

    def _wrong_events(self) -> str:
        """Say what is wrong with the order of the events, or with their times."""
        try:
            assert_alternating(self.events)
        except AssertionError as fault:
            return str(fault)
        for event, after in pairwise(event for event in self.events if event.type is not USAGE):
            if event.type is START and not (after.alternatives and after.alternatives[0].text):
                return "speech without a word"
            if self.expected.unbroken and event.type is FINAL and after.type is END:
                last = event.alternatives[0].text.rpartition(" ")[2]
                if last in self._followed_at_once:
                    return f"speech ended after {last!r}, and went on"
        spoken = [event for event in self.events if event.type in (INTERIM, FINAL)]
        for event, after in pairwise(spoken):
            text, text_after = event.alternatives[0].text, after.alternatives[0].text
            taken_back = event.type is INTERIM and after.type is FINAL and not text_after
            if taken_back and not self.takes_back:
                return f"an empty final after the hypothesis {text!r}"
            again = event.request_id == after.request_id and text == text_after
            if event.type is FINAL and after.type is INTERIM and again:
                return f"the final {text!r} is a hypothesis again"
        end = self.pushed + sum(self.pauses.values()) + TIME_ERROR
        for data in (event.alternatives[0] for event in spoken):
            if not 0 <= data.start_time <= data.end_time <= end * _FASTEST_CLOCK:
                return f"{data.text!r} from {data.start_time} to {data.end_time} s"
        return ""

    @property
    def _followed_at_once(self) -> set[str]:
        """The words after which the next one starts without a pause."""
        words = self.said.words
        return {word.text for word, after in pairwise(words) if word.last == after.first}

    def _wrong_flush(self) -> str:
        """Say which flush was answered with nothing while words were open, or not at all."""
        for flush in self.flushed if self.error is None else ():
            answers = [
                (at, event.alternatives[0].text)
                for at, event in zip(self.arrived, self.events, strict=True)
                if event.type is FINAL
            ][sum(event.type is FINAL for event in self.events[: flush.events]) :]
            if flush.open and answers and not answers[0][1]:
                return f"a flush was answered with nothing, open were {flush.open}"
            in_time = bool(answers) and answers[0][0] < flush.at + _IN_TIME
            if self.expected.prompt and flush.open and not in_time:
                return f"a flush was not answered in time, open were {flush.open}"
            # A hypothesis that is no word counts as open, too.
            calm = flush.is_calm and not self.takes_back
            if calm and not (answers and answers[0][0] < flush.at + _AT_ONCE):
                return "a flush was not answered, and nothing was open"
        return ""

    @property
    def delays(self) -> list[float]:
        """Seconds from the end of each word, said live without a pause, to its final."""
        final: dict[str, float] = {}
        for at, event in zip(self.arrived, self.events, strict=True):
            if event.type is FINAL:
                for word in event.alternatives[0].text.split():
                    final.setdefault(word, at - self.began)
        return [final[word.text] - word.end for word in self.said.words if word.text in final]

    def _not_done(self) -> str:
        """Say which act of the caller had no effect, or none in time."""
        if max(self.delays, default=0.0) > self.expected.latest_final:
            return f"a final came {max(self.delays):.1f} s after its word"
        if self.expected.prompt and self.open_after_mutes:
            return f"a mute brought no final of {self.open_after_mutes}"
        for change in self.changed[-1:] if self.error is None else ():
            configs = [each.config.get("metadata", {}) for each in self.connections]
            late = [
                event
                for at, event in zip(self.arrived, self.events, strict=True)
                if at > change.at + _AT_ONCE
            ]
            by_old_ones = {"change": change.number} not in configs
            if by_old_ones and not set(change.open).isdisjoint(words(late)):
                return f"options changed, and {change.open} were heard by the old ones"
        return ""

    def _too_much(self) -> str:
        """Say what was sent or buffered more than allowed."""
        if len(self.connections) > self.expected.most_connections:
            return f"{len(self.connections)} connections, and nothing went wrong"
        # Long speech is cut at a breath as well.
        breaths = int(self.pushed / _SHORTEST_MONOLOGUE)
        places = len({flush.said for flush in self.flushed}) + len(self.pauses) + breaths + 2
        most = max(self.silence.values(), default=0) / (2 * RATE)
        if most > _LONGEST_SILENCE * places:
            return f"{most:.1f} s of silence for {places} places"
        if self.drained_in > _LONGEST_DRAIN:
            return f"{self.drained_in:.1f} s until a stream ended that was heard"
        if self.stuffed > self.expected.most_waiting:
            return f"{self.stuffed} bytes waited for room in the socket"
        return ""

    def __str__(self) -> str:
        return (
            f"{len(self.connections)} connections, {self.seconds:.1f} s, "
            f"{len(self.reported)} errors, {self.error!r}, heard {' '.join(self.heard)}"
        )


class Speaker:
    """Pushes a talk into a stream: live, and then silence until all is heard; or at once."""

    def __init__(
        self,
        stream: tiro.SpeechStream,
        outcome: Outcome,
        *,
        live: bool,
        flushes: dict[float, int],
        changes: Sequence[float],
        presses: Sequence[float],
        flushes_each: int,
        late: dict[float, float],
        ms: float,
        patience: float,
    ) -> None:
        self._stream = stream
        self._outcome = outcome
        self._live = live
        self._flushes = sorted(flushes.items())
        self._changes = sorted(changes)
        self._presses = sorted(presses)
        self._flushes_each = flushes_each
        self._late = sorted(late.items())
        self._ms = ms
        self._patience = patience
        self._pauses = sorted(outcome.pauses.items())
        self.ended_at: float | None = None
        """When all was said, seconds of the loop's clock."""

    async def speak(self) -> None:
        clock = asyncio.get_running_loop().time
        due = self._outcome.began = clock()
        for frame in self._frames():
            if self._outcome.error is not None or self._outcome.deaf:
                break
            self._stream.push_frame(frame)
            self._outcome.pushed += frame.duration
            self._do_what_is_due(self._outcome.pushed)
            if self._live:
                # At the pace of a microphone, whatever a frame costs: a late frame is caught up.
                due += frame.duration
                await asyncio.sleep(due - clock())
            if self._late and self._outcome.pushed >= self._late[0][0]:
                await asyncio.sleep(self._late.pop(0)[1])
            if self._presses and self._outcome.pushed >= self._presses[0] - _SAMPLE:
                await self._end_press(self._presses.pop(0))
                due = clock()
            if self._pauses and self._outcome.pushed >= self._pauses[0][0]:
                await self._be_muted(self._pauses.pop(0)[1])
                due = clock()
            if self._outcome.pushed >= self._outcome.said.seconds and self._is_finished():
                break
        if self._outcome.error is None:
            self._stream.end_input()
        self.ended_at = clock()

    def _do_what_is_due(self, pushed: float) -> None:
        self._outcome.stuffed = max(self._outcome.stuffed, waiting_bytes(self._stream))
        while self._flushes and pushed >= self._flushes[0][0]:
            self._flush(self._flushes.pop(0)[1])
        if self._changes and pushed >= self._changes[0]:
            self._changes.pop(0)
            self.change(len(self._changes))

    def change(self, number: int) -> None:
        """Change a field that the server does not know, so that nothing else changes."""
        now, (_, open_words) = asyncio.get_running_loop().time(), self._said_and_open()
        self._outcome.changed.append(Change(now, number, open_words))
        self._stream.update_options(extra_config={"metadata": {"change": number}})

    def _flush(self, count: int) -> None:
        outcome = self._outcome
        said, open_words = self._said_and_open()
        since = outcome.pushed - max((word.end for word in said), default=0.0)
        pauses = sum(after.start - word.end > CALM for word, after in pairwise(said))
        is_talking = any(word.start < outcome.pushed < word.end for word in outcome.said.words)
        is_calm = not open_words and not is_talking and since > CALM and pauses > 0
        now = asyncio.get_running_loop().time()
        outcome.flushed.append(
            Flush(now, len(outcome.events), len(said), open_words, is_calm and outcome.timed)
        )
        for _ in range(count):
            self._stream.flush()

    def _said_and_open(self) -> tuple[list[Spoken], list[str]]:
        """Return the words that were said, and those of them that are not yet final."""
        outcome = self._outcome
        said = [word for word in outcome.said.words if word.end <= outcome.pushed + _SAMPLE]
        heard = set(outcome.heard)
        return said, [word.text for word in said if word.text not in heard]

    async def _end_press(self, at: float) -> None:
        """Flush, and go on when the words are heard; the microphone is off meanwhile."""
        clock, outcome = asyncio.get_running_loop().time, self._outcome
        started = clock()
        self._flush(self._flushes_each)
        said = [word.text for word in outcome.said.words if word.end <= at + _SAMPLE]
        while outcome.heard != said and clock() < started + self._patience:
            await asyncio.sleep(0.05)
        outcome.deaf = outcome.heard != said
        await asyncio.sleep(_BETWEEN_PRESSES)
        outcome.muted.append((started, clock()))
        outcome.pauses[at] = clock() - started

    async def _be_muted(self, seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        await asyncio.sleep(seconds)
        self._outcome.muted.append((started, clock()))
        self._outcome.open_after_mutes += self._said_and_open()[1]

    def _frames(self) -> Iterator[rtc.AudioFrame]:
        said, size = self._outcome.said, round(RATE * self._ms / 1000)
        if not self._live:
            yield from frames(said.pcm(), ms=self._ms)
            return
        start = _longer(said, _SHORT_PATIENCE).pcm()
        whole = len(start) // size
        yield from frames(start[: whole * size], ms=self._ms)
        yield from islice(frames(_longer(said, self._patience).pcm(), ms=self._ms), whole, None)

    def _is_finished(self) -> bool:
        outcome = self._outcome
        if outcome.pushed > KEEP_AT_MOST:
            outcome.given_up = self._stream.stats.audio_given_up
        finished = outcome.heard == outcome.due
        if outcome.pushed >= outcome.said.seconds + self._patience - 0.1:
            outcome.deaf = not finished
        return finished


def waiting_bytes(stream: tiro.SpeechStream) -> int:
    """Return how many bytes wait for room in the socket."""
    connection = stream._exchange and stream._exchange._connection
    transport = connection and connection._ws._writer.transport
    return transport.get_write_buffer_size() if transport else 0


def _longer(said: Talk, seconds: float) -> Talk:
    """Return a talk with silence after it; it starts with the samples of any shorter version."""
    return replace(said, blocks=said.blocks + round(seconds / SECONDS))


async def hear(
    said: Talk,
    hooks: Hooks | None = None,
    *,
    live: bool = False,
    flush_at: float | None = None,
    flushes: dict[float, int] | None = None,
    changes: Sequence[float] = (),
    presses: Sequence[float] = (),
    flushes_each: int = 1,
    late: dict[float, float] | None = None,
    change_at_end: bool = False,
    new_key: NewKey | None = None,
    ms: float = 50,
    max_retry: int = 3,
    pauses: dict[float, float] | None = None,
    patience: float = PATIENCE,
    buffer: int | None = None,
    timed: bool = True,
    takes_back: bool = False,
    expected: Expected = Expected(),
    endpoint_silence: float = 0.5,
    proxy: Proxy | None = None,
    interims: bool = True,
) -> Outcome:
    """Speak to a server of one's own until all is over; leaves nothing open.

    Args:
        said: What is said.
        hooks: What goes wrong, if anything does.
        live: Whether the audio comes at its own pace, and goes on until all is heard.
        flush_at: Seconds of audio after which the caller flushes.
        flushes: After how many seconds of audio the caller flushes, and how often in a row.
        changes: Seconds of audio after which options change.
        presses: Seconds of audio after which a button is let go: the caller flushes, and sends no
            audio until the answer is there.
        flushes_each: How often in a row the caller flushes then.
        late: After how many seconds of audio the rest is late, and by how many seconds.
        change_at_end: Whether options change when the service gets the end marker.
        new_key: Asks for another key, if anybody does.
        ms: Milliseconds of a frame.
        buffer: Bytes of the client's socket buffers; None for the system's.
        timed: Whether the service gives times.
        takes_back: Whether the service says of hypotheses that there was no word.
        expected: What else than the words it is judged by.
        endpoint_silence: Seconds of silence that the service waits for.
        max_retry: The retries of the framework.
        pauses: After how many seconds of audio the microphone is muted, and for how many seconds.
        patience: Seconds of live silence after the talk, after which the stream counts as deaf.
        proxy: What stands between, if anything does.
        interims: Whether the client wants hypotheses.
    """
    watch, at_end = Watch(), AtTheEnd()
    outcome = Outcome(
        said,
        flowing=watch.flowing,
        silence=watch.silence,
        pauses=pauses or {},
        timed=timed,
        takes_back=takes_back,
        expected=expected,
    )
    conn = APIConnectOptions(max_retry=max_retry)
    server = TiroServer(
        api_key=KEY if new_key is None else None,
        recognizers={"is": NumberedRecognizer(said)},
        hooks=Combined(watch, at_end, hooks or Hooks(), new_key or Hooks()),
        endpoint_silence=endpoint_silence,
        # A file is pushed in no time at all.
        interim_interval=0.35 if live else 0.0,
    )
    clock = asyncio.get_running_loop().time
    started = clock()
    async with server, proxy or nullcontext():
        url = server.base_url if proxy is None else proxy.before(server.base_url)
        async with (
            _narrow(buffer) as http_session,
            tiro.STT(
                base_url=url, api_key=KEY, http_session=http_session, interim_results=interims
            ) as stt,
        ):
            stt.on("error", outcome.reported.append)
            stream = stt.stream(conn_options=conn)
            due = {**(flushes or {}), **({} if flush_at is None else {flush_at: 1})}
            speaker = Speaker(
                stream,
                outcome,
                live=live,
                flushes=due,
                changes=changes,
                presses=presses,
                flushes_each=flushes_each,
                late=late or {},
                ms=ms,
                patience=patience,
            )
            if change_at_end:
                at_end.call = partial(speaker.change, -1)
            if new_key is not None:
                new_key.give = partial(stream.update_options, api_key=new_key.key)
            await _speak_and_listen(speaker, stream, outcome, LONGEST + patience)
            outcome.seconds = clock() - started
            outcome.given_up = stream.stats.audio_given_up
            if live and speaker.ended_at is not None:
                outcome.drained_in = clock() - speaker.ended_at
    outcome.connections = server.connections
    return outcome


@asynccontextmanager
async def _narrow(buffer: int | None) -> AsyncIterator[aiohttp.ClientSession | None]:
    """Make an HTTP session whose sockets hold no more than `buffer` bytes, as those of a WAN do."""
    if buffer is None:
        yield None
        return

    def narrow(address: Any) -> socket.socket:
        made = socket.socket(*address[:3])
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        return made

    connector = aiohttp.TCPConnector(socket_factory=narrow)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def _speak_and_listen(
    speaker: Speaker, stream: tiro.SpeechStream, outcome: Outcome, longest: float
) -> None:
    speaking = asyncio.create_task(speaker.speak(), name="speaker")
    try:
        await asyncio.wait_for(_listen(stream, outcome), longest)
    except asyncio.TimeoutError:
        outcome.deaf = True
    finally:
        speaking.cancel()
        (raised,) = await asyncio.gather(speaking, return_exceptions=True)
        if isinstance(raised, Exception):
            outcome.error = raised
        await stream.aclose()


async def _listen(stream: tiro.SpeechStream, outcome: Outcome) -> None:
    clock = asyncio.get_running_loop().time
    try:
        async for event in stream:
            outcome.events.append(event)
            outcome.arrived.append(clock())
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        outcome.error = error


async def close_amid(said: Talk, fault: Fault) -> float:
    """Close a live stream as soon as a fault strikes it. Return how long that took."""
    server = TiroServer(
        api_key=KEY,
        recognizers={"is": NumberedRecognizer(said)},
        hooks=fault,
        interim_interval=0.0,
    )
    clock = asyncio.get_running_loop().time
    async with server, tiro.STT(base_url=server.base_url, api_key=KEY) as stt:
        stream = stt.stream()
        for frame in frames(said.pcm()):
            stream.push_frame(frame)
            await asyncio.sleep(frame.duration)
            if fault.struck:
                break
        else:
            stream.end_input()
            await until(lambda: bool(fault.struck), PATIENCE)
        started = clock()
        await stream.aclose()
        return clock() - started
