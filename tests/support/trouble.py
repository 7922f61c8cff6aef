"""Hooks and faults for campaigns and trials: what a service may do, and what it must not."""

from __future__ import annotations

import asyncio
import json
import math
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from aiohttp import WSMsgType

from livekit.plugins.tiro.testing import (
    ConnectionRecord,
    Drop,
    HandshakeRefusal,
    Hooks,
    StatusError,
)
from livekit.plugins.tiro.testing.backend import GATE_SAMPLES
from livekit.plugins.tiro.testing.faults import Fault, Moment, When

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_NOTHING = '{"result":{"error":null,"results":[],"speechEventType":"SPEECH_EVENT_UNSPECIFIED"}}'
_NO_TEXT = '{"result":{"results":[{"alternatives":[{"transcript":""}],"isFinal":true}]}}'
_EVENTS: tuple[Any, ...] = (
    "END_OF_SINGLE_UTTERANCE",
    "START_OF_SPEECH",
    "END_OF_SPEECH",
    "END_OF_AUDIO",
    1,
    "NEW_IN_2030",
)
_FINAL = '"isFinal":true'
_INTERIM = '"isFinal":false'
# s; a final sent less than this before a client's next connection did not reach the client.
_UNDER_WAY = 0.1
# Pings as long as can be; so many that their pongs fill a socket more often than audio does.
_PING = bytes(125)
_PINGS_PER_SECOND = 400


def _now() -> float:
    return asyncio.get_running_loop().time()


def _written(document: Any) -> str:
    """Write a frame as the gateway does; faults look for what is in it."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _results(document: Any) -> list[dict[str, Any]]:
    """Return the results in a frame that was read."""
    results: list[dict[str, Any]] = document.get("result", {}).get("results", [])
    return results


class Latency(Hooks):
    """Everything that the service says arrives later, in order, and hanging up too."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"Latency({self._seconds:g} s)"

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        loop = asyncio.get_running_loop()

        def deliver() -> None:
            task = asyncio.ensure_future(connection.line.send(text))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())

        loop.call_later(self._seconds, deliver)
        return None

    async def done(self, connection: ConnectionRecord) -> None:
        await asyncio.sleep(self._seconds + 0.01)


class Pace(Hooks):
    """The service works off audio at a pace, 1 being that of speech."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._due: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"Pace({self._pace:g})"

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        now = _now()
        due = max(self._due.get(connection.number, now), now - 0.1)
        self._due[connection.number] = due + len(pcm) / 2 / connection.sample_rate / self._pace
        await asyncio.sleep(max(0.0, self._due[connection.number] - now))


class SilenceLimit(Hooks):
    """A session ends in which nobody has spoken for some seconds."""

    def __init__(self, seconds: float, code: int | None = None, *, noise: int = 0) -> None:
        """Drop the connection, or send an error of this gRPC code.

        Args:
            seconds: How long nobody may speak.
            code: Of the error; None drops the connection.
            noise: Samples of this peak are no speech.
        """
        self._seconds, self._code, self._noise = seconds, code, noise
        self._spoken_at: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"SilenceLimit({self._seconds:g}, {self._code})"

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        second = connection.seconds
        if np.abs(np.frombuffer(pcm, np.int16)).max(initial=0) > self._noise:
            self._spoken_at[connection.number] = second
        if second - self._spoken_at.get(connection.number, 0.0) > self._seconds:
            raise Drop if self._code is None else StatusError(self._code, "nobody speaks")


class Chatter(Hooks):
    """Empty responses and events whenever the service likes, and where a flush is to be answered.

    There is no empty response while a hypothesis is open, on this connection or one before: that
    would take the hypothesis back, and nobody can tell that it is false. A hypothesis also counts
    as open if the client left while the final was under way.
    """

    def __init__(self, seed: int, *, empty: bool) -> None:
        self._seed = seed
        self._empty = empty
        self._is_open = False
        self._final_at = -math.inf

    def __repr__(self) -> str:
        return f"Chatter({self._seed}, empty={self._empty})"

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        self._is_open = self._is_open or _INTERIM in text
        return text

    async def sent(self, connection: ConnectionRecord, text: str) -> None:
        if self._is_open and _FINAL in text:
            self._is_open, self._final_at = False, _now()

    async def opened(self, connection: ConnectionRecord) -> None:
        self._is_open = self._is_open or _now() < self._final_at + _UNDER_WAY

    async def beside(self, connection: ConnectionRecord) -> None:
        chance = Random(self._seed + connection.number)
        while True:
            await asyncio.sleep(chance.uniform(0.05, 3.0))
            if connection.speech is None:
                continue
            if not self._empty:
                await connection.line.send(_event(chance.choice(_EVENTS)))
            elif not self._is_open:
                await connection.line.send(chance.choice((_NOTHING, _NO_TEXT)))

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        if self._empty and not self._is_open and not any(pcm):
            await connection.line.send(_NOTHING)


class ShownOnce(Hooks):
    """Takes a sound for a word, says so, and is gone; the next connection hears no word in it.

    Args:
        start: The second of the audio at which it starts, on the first connection.
        end: Where it ends.
    """

    def __init__(self, start: float, end: float) -> None:
        self._start, self._end = start, end

    def __repr__(self) -> str:
        return f"ShownOnce({self._start:g}, {self._end:g})"

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        if connection.number or connection.seconds < self._end:
            return
        word = {"word": "hm", "startTime": f"{self._start}s", "endTime": f"{self._end}s"}
        shown = {"alternatives": [{"transcript": "hm", "words": [word]}], "isFinal": False}
        await connection.line.send(_written({"result": {"results": [shown]}}))
        raise Drop


def _event(event: Any) -> str:
    return _written({"result": {"speechEventType": event}})


class EventBeforeFinal(Hooks):
    """Events between hypotheses and their finals."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __repr__(self) -> str:
        return f"EventBeforeFinal({self._seed})"

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        if _FINAL in text:
            chance = Random(self._seed + len(connection.frames))
            await connection.line.send(_event(chance.choice(_EVENTS)))
        return text


class InterimBeforeFinal(Hooks):
    """A frame with a final holds the last hypothesis too, in front of it: the order of v2beta1."""

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        document = json.loads(text)
        for final in _results(document)[:1]:
            if final["isFinal"]:
                document["result"]["results"] = [{**final, "isFinal": False}, final]
        return _written(document)


class EmptyTexts(Hooks):
    """A segment without words gives a final with an empty transcript, and not no results."""

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        document = json.loads(text)
        if document.get("result", {}).get("results") == []:
            alternative = {"transcript": "", "confidence": 0, "words": []}
            document["result"]["results"] = [{"alternatives": [alternative], "isFinal": True}]
        return _written(document)


class Cuts(Hooks):
    """The service decides in the middle of speech: of a hypothesis, all words but the last.

    Args:
        with_rest: Whether the last one is a hypothesis in the same frame, in front of the final.
    """

    def __init__(self, *, with_rest: bool = False) -> None:
        self._with_rest = with_rest
        self._final_to: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"Cuts(with_rest={self._with_rest})"

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        document = json.loads(text)
        for result in _results(document)[:1]:
            best = result["alternatives"][0]
            words = self._unsaid(connection, best["words"])
            if not words and not result["isFinal"]:
                return None
            if not result["isFinal"] and len(words) > 2:
                if self._with_rest:
                    rest = words[-1]
                    document["result"]["results"].insert(0, _hypothesis(rest["word"], rest))
                result["isFinal"], words = True, words[:-1]
            if result["isFinal"] and words:
                self._final_to[connection.number] = words[-1]["word"]
            best["words"], best["transcript"] = words, " ".join(word["word"] for word in words)
            if not words:
                document["result"]["results"] = []
        return _written(document)

    def _unsaid(
        self, connection: ConnectionRecord, words: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return the words of a segment after those that were final already."""
        texts = [word["word"] for word in words]
        last = self._final_to.get(connection.number)
        return words[texts.index(last) + 1 :] if last in texts else words


def _hypothesis(text: str, *words: dict[str, Any]) -> dict[str, Any]:
    return {"alternatives": [{"transcript": text, "words": words}], "isFinal": False}


class WithoutTimes(Hooks):
    """The service gives no words with times."""

    def __repr__(self) -> str:
        return "WithoutTimes()"

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        document = json.loads(text)
        for result in _results(document):
            for alternative in result["alternatives"]:
                alternative.pop("words", None)
        return _written(document)


class Times(Hooks):
    """Puts other times in the place of those of each word."""

    def __init__(self, start: Callable[[float], str], end: Callable[[float], str]) -> None:
        self._start, self._end = start, end

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        document = json.loads(text)
        for result in _results(document):
            for word in (word for item in result["alternatives"] for word in item.get("words", ())):
                start, end = (float(word[name].removesuffix("s")) for name in _TIMES)
                word.update(startTime=self._start(start), endTime=self._end(end))
        return _written(document)


_TIMES = ("startTime", "endTime")
IMPOSSIBLE: dict[str, Times] = {
    "negative": Times(lambda at: f"-{at + 1:.3f}s", lambda at: f"-{at:.3f}s"),
    "huge": Times(lambda at: f"{at:.3f}s", lambda at: f"{at + 1e12:.3f}s"),
    "endless": Times(lambda at: f"{at:.3f}s", lambda _: "1e999s"),
    "no number": Times(lambda _: "NaNs", lambda _: "NaNs"),
    "reversed": Times(lambda at: f"{at + 0.4:.3f}s", lambda at: f"{max(0.0, at - 0.4):.3f}s"),
    "an hour ahead": Times(lambda at: f"{at + 3600:.3f}s", lambda at: f"{at + 3600:.3f}s"),
}
"""Times that can not be."""


# -- faults --------------------------------------------------------------------------------------


class PingWithoutReading(Fault):
    """The service takes nothing more, and goes on sending pings."""

    def __init__(self, when: When = Moment.CONFIG) -> None:
        super().__init__(when)

    async def strike(self, connection: ConnectionRecord) -> None:
        connection.line.stop_reading()

    async def beside(self, connection: ConnectionRecord) -> None:
        while True:
            await asyncio.sleep(4)
            if connection.number in self.struck:
                await connection.line._write(b"", WSMsgType.PING)


class PingStorm(Fault):
    """The service takes nothing for some seconds, and pings all the time."""

    def __init__(self, when: When, seconds: float) -> None:
        super().__init__(when)
        self._seconds = seconds
        self.answers = round(seconds) * _PINGS_PER_SECOND * (len(_PING) + 8)
        """Bytes of the pongs."""

    async def strike(self, connection: ConnectionRecord) -> None:
        connection.line.stop_reading()
        asyncio.get_running_loop().call_later(self._seconds, connection.line.go_on_reading)

    async def beside(self, connection: ConnectionRecord) -> None:
        while True:
            await asyncio.sleep(0.5)
            since = _now() - self.struck.get(connection.number, math.inf)
            for _ in range(_PINGS_PER_SECOND // 2 if 0 <= since < self._seconds else 0):
                await connection.line._write(_PING, WSMsgType.PING)


class TalksOn(Fault):
    """The service never hangs up after the end marker, and says something each second."""

    def __init__(self, what: int) -> None:
        super().__init__(Moment.DONE)
        self._says = (_NOTHING, _event("END_OF_AUDIO"), "what is this")[what]

    async def strike(self, connection: ConnectionRecord) -> None:
        while not connection.line.is_lost:
            await connection.line.send(self._says)
            await asyncio.sleep(1)


class SaysTheEnd(Fault):
    """The service gets the end marker, says an event or that it heard nothing, and is gone."""

    def __init__(self, event: str = "") -> None:
        super().__init__(Moment.END)
        self._says = _event(event) if event else _NOTHING

    async def strike(self, connection: ConnectionRecord) -> NoReturn:
        await connection.line.send(self._says)
        await asyncio.sleep(0.1)
        raise Drop


class HearsNothing(Fault):
    """The service says that there is no word in the first audio, or in all, and is gone."""

    def __init__(self, *, early: bool) -> None:
        super().__init__(Moment.END)
        self._early = early

    def __repr__(self) -> str:
        return f"HearsNothing(early={self._early})"

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        if self._early and not connection.messages:
            await connection.line.send(_NOTHING)

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        return None

    async def strike(self, connection: ConnectionRecord) -> NoReturn:
        if not self._early:
            await connection.line.send(_NOTHING)
            await asyncio.sleep(0.1)
        raise Drop


class NeverDecides(Fault):
    """The service has a new hypothesis each second from the first silence on, and no final."""

    def __init__(self) -> None:
        super().__init__(Moment.FLUSH)

    async def strike(self, connection: ConnectionRecord) -> None:
        number = 0
        while not connection.line.is_lost:
            number += 1
            result = _hypothesis(f"or is it {number}")
            await connection.line.send(_written({"result": {"results": [result]}}))
            await asyncio.sleep(1)


class ShutGate(Hooks):
    """A voice gate that no noise opens: of audio without words, nothing is said.

    Only a first message that is too short for it to look at opens it, as at the service.
    """

    def __init__(self) -> None:
        self._open: set[int] = set()

    def __repr__(self) -> str:
        return "ShutGate()"

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        if not connection.messages and len(pcm) // 2 < GATE_SAMPLES:
            self._open.add(connection.number)

    async def frame(self, connection: ConnectionRecord, text: str) -> str | None:
        return text if _results(json.loads(text)) or connection.number in self._open else None


class AtTheEnd(Hooks):
    """Calls somebody when the end marker arrives, once, and answers a second later."""

    def __init__(self) -> None:
        self.call: Callable[[], None] | None = None

    async def end(self, connection: ConnectionRecord) -> None:
        call, self.call = self.call, None
        if call is not None:
            call()
            await asyncio.sleep(1)


class Outage(Hooks):
    """From a second of the audio on there is no service for a while: it hangs up, and refuses.

    Args:
        at: The second.
        seconds: How long.
        refusal: The HTTP status; or what a gateway that has no service behind it does to a
            connection.
    """

    def __init__(
        self, at: float, seconds: float, refusal: int | Exception | type[Exception] = 503
    ) -> None:
        self._at, self._seconds, self._refusal = at, seconds, refusal
        self._until: float | None = None
        self.refused = 0

    def __repr__(self) -> str:
        return f"Outage(at {self._at:g} s, {self._seconds:g} s, {self._refusal!r})"

    @property
    def _is_away(self) -> bool:
        return self._until is not None and _now() < self._until

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        if not self._is_away or not isinstance(self._refusal, int):
            return None
        self.refused += 1
        return HandshakeRefusal(self._refusal)

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        if self._until is None and connection.seconds >= self._at:
            self._until = _now() + self._seconds
            self.begun()
            raise Drop
        if self._is_away and not isinstance(self._refusal, int):
            self.refused += 1
            raise self._refusal

    def begun(self) -> None:
        """Note that it has begun."""


class ComesAndGoes(Outage):
    """An outage, and after that connections that do not live long: each takes audio for a moment.

    Args:
        at: The second of the audio at which the outage begins.
        seconds: How long it is.
        lives: The seconds that the connections after it live from their first audio on.
    """

    def __init__(self, at: float, seconds: float, lives: Iterable[float]) -> None:
        super().__init__(at, seconds)
        self._lives = list(lives)
        self._ends: dict[int, float] = {}

    def __repr__(self) -> str:
        return f"ComesAndGoes(at {self._at:g} s, {self._seconds:g} s, {self._lives})"

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        if self._until is not None and not self._is_away:
            if connection.number not in self._ends and len(self._ends) < len(self._lives):
                self._ends[connection.number] = _now() + self._lives[len(self._ends)]
            if _now() >= self._ends.get(connection.number, math.inf):
                raise Drop
        await super().audio(connection, pcm)


class NewKey(Outage):
    """After the outage another key is asked for, which the caller was given meanwhile.

    Args:
        at: The second of the audio.
        seconds: How long there is no service.
        given_after: After how many seconds of it the caller has the key.
    """

    key = "another"

    def __init__(self, at: float, seconds: float, given_after: float) -> None:
        super().__init__(at, seconds)
        self._given_after = given_after
        self.give: Callable[[], None] | None = None

    async def handshake(self, connection: ConnectionRecord) -> HandshakeRefusal | None:
        refusal = await super().handshake(connection)
        if refusal is None and self._until is not None and connection.token != self.key:
            return HandshakeRefusal(401)
        return refusal

    def begun(self) -> None:
        if self.give is not None:
            asyncio.get_running_loop().call_later(self._given_after, self.give)
