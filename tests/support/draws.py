"""What a campaign draws: a stream, what is said on it, and what goes wrong, from a seed.

Most streams are drawn freely. The others are scenes: what free draws would show too rarely, since
it takes several things at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

from livekit.plugins.tiro.testing import Drop, Hooks, StatusError
from livekit.plugins.tiro.testing.faults import (
    Close,
    Combined,
    Delay,
    Disconnect,
    Drift,
    Fail,
    Garbage,
    HalfOpen,
    IdleLimit,
    IgnoreEnd,
    LongLine,
    Moment,
    Mute,
    PerConnection,
    Refuse,
    ResetHandshake,
    SessionLimit,
    StalledHandshake,
    StopReading,
    When,
)

from .numbered import SECONDS, Spoken, Talk, in_one_breath, talk
from .trial import CALM, FULL_SOCKET, Expected, Outcome, hear
from .trouble import (
    IMPOSSIBLE,
    Chatter,
    ComesAndGoes,
    Cuts,
    EmptyTexts,
    EventBeforeFinal,
    HearsNothing,
    InterimBeforeFinal,
    Latency,
    NeverDecides,
    NewKey,
    Outage,
    Pace,
    PingStorm,
    PingWithoutReading,
    SaysTheEnd,
    ShownOnce,
    ShutGate,
    SilenceLimit,
    TalksOn,
    WithoutTimes,
)

# Retrying mends every fault of a trial, so with more retries than faults every word has to be
# heard.
RETRIES = 7
_LARGEST_DRIFT = 0.002
# Blocks: a service drops its look-ahead when it decides, some 0.8 s after a word, so it would lose
# the start of a word that began just then.
_SHORTEST_GAP = 100
# s after the start of a word, up to which a late flush may come: 0.08 s, and a frame of 50 ms.
LATE_FLUSH = 0.13
# Blocks: together with the silence of a flush, this is less than the 5 s without a word after which
# the service decides too.
_LONGEST_GAP = 150
_RETRYABLE = (1, 2, 4, 8, 13, 14)
_ROTATION = (4, 11)
# s; a service whose clock is 5 % off is believed until three finals in a row agree that it is.
_TIME_ERROR_OF_A_WRONG_CLOCK = 0.7

Maker = Callable[[Random], Hooks]


def _when(rng: Random) -> When:
    if rng.random() < 0.5:
        return rng.choice(list(Moment))
    return round(rng.uniform(0.05, 6.0), 2)


LOUD: dict[str, Maker] = {
    "FIN": lambda rng: Disconnect(_when(rng)),
    "RST": lambda rng: Disconnect(_when(rng), reset=True),
    "close frame": lambda rng: Close(_when(rng), rng.choice((0, 1000, 1001, 1006, 1011, 4000))),
    "close frame, stays": lambda rng: Close(_when(rng), 1001, stay=True),
    "error": lambda rng: Fail(rng.choice(_RETRYABLE), _when(rng), stay=rng.random() < 0.3),
    "limit": lambda rng: Fail(rng.choice(_ROTATION), _when(rng), shape="v2"),
    "session limit": lambda rng: SessionLimit(round(rng.uniform(0.5, 6.0), 2)),
    "idle limit": lambda rng: IdleLimit(round(rng.uniform(1.0, 4.0), 2)),
    "line too long": lambda rng: LongLine(),
}
"""Faults that end a connection so that the client is told."""
SILENT: dict[str, Maker] = {
    "mute": lambda rng: Mute(_when(rng)),
    "half-open": lambda rng: HalfOpen(_when(rng)),
    "stops reading": lambda rng: StopReading(_when(rng)),
    "ignores the end": lambda rng: IgnoreEnd(),
    "pings, does not read": lambda rng: PingWithoutReading(_when(rng)),
    "talks on": lambda rng: TalksOn(rng.randrange(3)),
    "says the end, is gone": lambda rng: SaysTheEnd("END_OF_AUDIO"),
}
"""Faults that the client has to find out itself."""
CLOSED: dict[str, Maker] = {
    "refused": lambda rng: Refuse(rng.choice((429, 500, 502, 503)), delay=rng.choice((0, 0, 2))),
    "hangs up": lambda rng: ResetHandshake(),
    "no answer": lambda rng: StalledHandshake(),
}
"""Faults of the handshake, after which there is no connection."""
KINDS = {**LOUD, **SILENT, **CLOSED}
_WEIGHTS = [4 if kind in LOUD else 1 for kind in KINDS]

BESIDE: dict[str, Maker] = {
    "slow": lambda rng: Pace(rng.choice((0.5, 1.0, 1.3, 4.0))),
    "empty responses": lambda rng: Chatter(rng.randrange(1000), empty=True),
    "events": lambda rng: Chatter(rng.randrange(1000), empty=False),
    "cuts": lambda rng: Cuts(),
    "interim before final": lambda rng: InterimBeforeFinal(),
    "empty texts": lambda rng: EmptyTexts(),
    "drift": lambda rng: Drift(rng.uniform(-_LARGEST_DRIFT, _LARGEST_DRIFT)),
    "impossible times": lambda rng: IMPOSSIBLE[rng.choice(list(IMPOSSIBLE))],
    "no times": lambda rng: WithoutTimes(),
    "garbage": lambda rng: Garbage(),
    "event before final": lambda rng: EventBeforeFinal(rng.randrange(1000)),
    "late finals": lambda rng: Delay(round(rng.uniform(0.1, 1.0), 2)),
    "late frames": lambda rng: Delay(round(rng.uniform(0.05, 0.3), 2), finals=False),
    "late": lambda rng: Latency(round(rng.uniform(0.5, 8.0), 2)),
}
"""Hooks that end no connection, in the order in which they change a frame."""
_UNTIMED = {"no times", "impossible times"}


@dataclass
class Trial:
    """One stream: what is said, and what goes wrong."""

    seed: int
    said: Talk
    kinds: list[str]
    faults: list[Hooks]
    beside: list[str] = field(default_factory=list)
    hooks: Hooks = field(default_factory=Hooks)
    """The hooks that end no connection, for all connections."""
    live: bool = True
    flushes: dict[float, int] = field(default_factory=dict)
    pauses: dict[float, float] = field(default_factory=dict)
    changes: list[float] = field(default_factory=list)
    presses: list[float] = field(default_factory=list)
    flushes_each: int = 1
    """How often in a row the caller flushes after each press."""
    change_at_end: bool = False
    late: dict[float, float] = field(default_factory=dict)
    """After how many seconds of audio the rest is late, and by how many seconds."""
    new_key: NewKey | None = None
    ms: float = 50
    buffer: int | None = None
    expected: Expected = Expected()
    endpoint_silence: float = 0.5
    """Seconds of silence that the service waits for."""
    takes_back: bool = False
    """Whether the service shows hypotheses that are no words."""
    interims: bool = True
    """Whether the client wants hypotheses."""

    async def run(self) -> Outcome:
        return await hear(
            self.said,
            Combined(PerConnection(*self.faults), self.hooks),
            live=self.live,
            flushes=self.flushes,
            pauses=self.pauses,
            changes=self.changes,
            presses=self.presses,
            flushes_each=self.flushes_each,
            change_at_end=self.change_at_end,
            late=self.late,
            new_key=self.new_key,
            ms=self.ms,
            buffer=self.buffer,
            timed=not _UNTIMED & set(self.beside),
            expected=self.expected,
            endpoint_silence=self.endpoint_silence,
            takes_back=self.takes_back,
            max_retry=RETRIES,
            interims=self.interims,
        )

    def __str__(self) -> str:
        said = " ".join(
            f"{word.text}@{word.start:.2f}{' softly' * (word.softer > 1)}"
            for word in self.said.words
        )
        return (
            f"--seed {self.seed} --streams 1: {'live' if self.live else 'a file'}, "
            f"{self.faults}, {self.hooks!r}, flushes {self.flushes}, muted {self.pauses}, "
            f"changes {self.changes}{' and at the end' if self.change_at_end else ''}, "
            f"late {self.late}, {self.new_key!r}, "
            f"presses {self.presses} of {self.flushes_each}, frames of {self.ms:g} ms, "
            f"buffers {self.buffer}, endpoint {self.endpoint_silence:g} s, peak {self.said.peak}, "
            f"noise {self.said.noise} to {self.said.noisy_to}, hums {self.said.hums}, "
            f"{'' if self.interims else 'no interims, '}said {said}"
        )


def draw(seed: int) -> Trial:
    """Return the trial of a seed."""
    rng, besides = Random(seed), Random(f"besides {seed}")
    scene = rng.choices(list(_SCENES), list(_SCENES.values()))[0]
    if besides.random() < _OF_THESE:
        scene = besides.choice(_QUIET_SCENES)
    return scene(seed, rng)


def _noticed_in_a_minute(kinds: list[str]) -> list[str]:
    """Leave out, of faults in a row that the client has to find out, the third and later ones.

    To wait for three services that say nothing takes longer than audio is kept.
    """
    left: list[str] = []
    silent = 0
    for kind in kinds:
        # A refusal is no sign of life, and takes no time.
        silent = silent + 1 if kind in SILENT else 0 if kind in LOUD else silent
        if silent <= 2:
            left.append(kind)
    return left


def _draw_freely(seed: int, rng: Random) -> Trial:
    said = _talk(rng)
    kinds = _noticed_in_a_minute(rng.choices(list(KINDS), _WEIGHTS, k=rng.randint(1, 6)))
    beside = _draw_beside(rng, kinds)
    trial = Trial(
        seed,
        said,
        kinds,
        [KINDS[kind](rng) for kind in kinds],
        beside,
        Combined(*(BESIDE[kind](rng) for kind in beside)),
        live=rng.random() < 0.6,
        ms=rng.choice((50, 50, 50, 5, 10, 20, 30, 60, 100)),
        buffer=rng.choice((None, None, None, 32768)),
        change_at_end=rng.random() < 0.05,
    )
    if trial.live:
        _draw_callers_acts(trial, rng)
    if rng.random() < 0.2:
        trial.changes.append(round(rng.uniform(0.1, said.seconds), 2))
    return trial


def _draw_callers_acts(trial: Trial, rng: Random) -> None:
    """Draw flushes, mutes and gaps in the audio."""
    ends = _ends(trial.said)
    if rng.random() < 0.3:
        trial.flushes[rng.choice(ends) + rng.uniform(0.01, 0.9)] = rng.choice((1, 1, 30))
    if rng.random() < 0.2:
        # As a rule, all is final then. The flush comes after a frame, and not within a word.
        before = max(0.06, trial.ms / 1000)
        trial.flushes[rng.choice(ends) + _SHORTEST_GAP / 100 - before] = 1
    if rng.random() < 0.2:
        trial.pauses[rng.choice(ends) + 0.5] = rng.choice((2.0, 6.0, 30.0))
    if rng.random() < 0.2:
        gaps = [end + 0.5 for end in ends if end + 0.5 not in trial.pauses]
        trial.pauses.update(dict.fromkeys(gaps, round(rng.uniform(0.2, 0.9), 2)))


def _draw_beside(rng: Random, kinds: list[str]) -> list[str]:
    """Draw hooks that end no connection, and that go together with the faults."""
    drawn = set(rng.sample(list(BESIDE), k=rng.choice((0, 0, 1, 2))))
    if "mute" in kinds or "late" in drawn:
        # A service that keeps sending empty responses is not mute, and the client can not tell that
        # they are false, nor that results will follow seconds later.
        drawn.discard("empty responses")
    if "talks on" in kinds:
        # It does the same after the end: nobody can tell that results will follow late.
        drawn.discard("late")
    if (_UNTIMED | {"drift"}) & drawn:
        # Cuts are made by the times, and the next word is heard only if no sample of it is missing.
        drawn.discard("cuts")
    return [kind for kind in BESIDE if kind in drawn]


# -- scenes --------------------------------------------------------------------------------------


def _draw_push_to_talk(seed: int, rng: Random) -> Trial:
    """Short answers, each flushed right after its sound; the microphone is off in between."""
    ms = rng.choice((10, 10, 20, 50))
    said = _answers(rng, ms)
    kinds = rng.choices(list(KINDS), _WEIGHTS, k=rng.randint(1, 2))
    beside = _draw_beside(rng, kinds)
    # A cut would answer a flush with only the start of the answer.
    beside = [kind for kind in beside if kind != "cuts"]
    if "mute" not in kinds and rng.random() < 0.3:
        # Empty responses to earlier pauses come before the final that was asked for.
        beside = ["empty responses", "late finals"]
    faults = [KINDS[kind](rng) for kind in kinds]
    flushes_each = rng.choice((1, 1, 1, 30))
    if flushes_each > 1:
        # The flushes have to be made on the next connection too.
        kinds, faults = ["FIN", *kinds], [Disconnect(Moment.FLUSH), *faults]
    return Trial(
        seed,
        said,
        kinds,
        faults,
        beside,
        Combined(*(BESIDE[kind](rng) for kind in beside)),
        presses=[word.end for word in said.words],
        flushes_each=flushes_each,
        ms=ms,
    )


def _draw_in_time(seed: int, rng: Random) -> Trial:
    """Nothing goes wrong, so each final has to come in time: push-to-talk, or a mute after speech.

    The service may want more silence than it is sent at first.
    """
    if rng.random() < 0.5:
        ms, silence = rng.choice((10, 20, 50)), rng.choice((0.5, 3.5))
        said = _answers(rng, ms)
        presses = [word.end for word in said.words]
        trial = Trial(seed, said, [], [], presses=presses, endpoint_silence=silence, ms=ms)
    else:
        said = _talk(rng)
        mutes = {rng.choice(_ends(said)) + rng.uniform(0.0, 0.5): rng.choice((6.0, 15.0))}
        trial = Trial(seed, said, [], [], pauses=mutes)
    # While the noise of the line is not known, more connections are asked whether it holds words.
    enough = 1 if said.noise <= 1 else math.inf
    expected = Expected(prompt=True, unseen=True, most_connections=enough)
    return replace(trial, expected=expected)


def _draw_cut(seed: int, rng: Random) -> Trial:
    """A service that cuts in the middle of speech, right before a short last word."""
    at = rng.randint(0, 100)
    words: list[Spoken] = []
    for length in (*rng.choices(range(15, 45), k=rng.randint(3, 6)), rng.randint(12, 38)):
        words.append(Spoken(f"w{len(words)}", at, at + length))
        at = words[-1].last
    words[-1] = replace(words[-1], softer=rng.choice((1, 1, 4)))
    said = _at_some_level(rng, words, at + rng.randint(0, 40))
    said = replace(said, noise=min(said.noise, said.peak // 40))
    with_rest = rng.random() < 0.5
    return Trial(
        seed,
        said,
        ["FIN"],
        [Disconnect(Moment.END)],
        ["cuts"],
        Cuts(with_rest=with_rest),
        live=False,
        expected=Expected(unbroken=with_rest),
    )


def _draw_noisy_line(seed: int, rng: Random) -> Trial:
    """Speech that does not stand out from the noise of the line, and a peer that takes nothing.

    Audio that the peer took and says nothing about is lost then: nobody can tell that it was
    speech. Or a service that is far behind, by the times of its results: then nothing is lost.
    """
    if rng.random() < 0.5:
        said = replace(_talk(rng, utterances=7), peak=12000, noise=6000)
        drops: list[Hooks] = [Disconnect(round(rng.uniform(4.0, 8.0), 2)) for _ in range(2)]
        return Trial(seed, said, ["FIN", "FIN"], drops, ["slow"], Pace(0.5))
    said = replace(_talk(rng), peak=12000, noise=6000)
    kind = rng.choice(("half-open", "stops reading", "pings, does not read"))
    return Trial(seed, said, [kind], [KINDS[kind](rng)])


def _draw_full_socket(seed: int, rng: Random) -> Trial:
    """A line that takes nothing any more, while frames are pushed."""
    when = round(rng.uniform(0.05, 3.0), 2)
    faults = {"stops reading": StopReading(when), "pings, does not read": PingWithoutReading(when)}
    kind = rng.choice(list(faults))
    ms = rng.choice((5, 10, 20, 50))
    return Trial(seed, _talk(rng), [kind], [faults[kind]], ms=ms, buffer=16384)


def _draw_stall(seed: int, rng: Random) -> Trial:
    """A peer that takes nothing for a while, and pings all the time.

    It takes the rest before it would be given up.
    """
    said = _talk(rng)
    storm = PingStorm(round(rng.uniform(0.05, 1.5), 2), round(rng.uniform(8.0, 11.0), 2))
    # After a pause the noise of the line is known; if not, three more are asked about it.
    has_pause = any(b.start - a.end > CALM for a, b in pairwise(said.words))
    enough = 1 if said.noise <= 1 or has_pause else 4
    return Trial(
        seed,
        said,
        ["pings, does not read"],
        [storm],
        ms=rng.choice((5, 10, 20, 50)),
        # With smaller buffers, the kernel takes some real time before it goes on.
        buffer=65536,
        expected=Expected(
            unseen=True, most_connections=enough, most_waiting=FULL_SOCKET + storm.answers
        ),
    )


def _draw_limit_at_onset(seed: int, rng: Random) -> Trial:
    """A session limit in the first utterance, after digital silence, before it is answered.

    With noise, a service decides every 5 s that it heard nothing, and drops its look-ahead: it
    would lose the start of a word that began just then.
    """
    said = replace(_talk(rng, utterances=1, lead=rng.randint(1020, 1200)), noise=0)
    limit = round(said.words[0].start + rng.uniform(0.02, 2.0), 2)
    kind = SessionLimit(limit, rng.choice((None, *_ROTATION)))
    return Trial(
        seed,
        said,
        ["session limit"],
        [kind],
        ["late"],
        Latency(2.5),
        expected=Expected(unseen=True),
    )


def _draw_false_end(seed: int, rng: Random) -> Trial:
    """A service that says that it heard nothing in speech, and is gone, but not often enough.

    It would be believed if it said so of all the audio three times in a row.
    """
    early = rng.random() < 0.5
    faults: list[Hooks] = [HearsNothing(early=early) for _ in range(4 if early else 2)]
    kinds = ["says the end, is gone"] * len(faults)
    return Trial(seed, _talk(rng), kinds, faults, live=False)


def _draw_no_decision(seed: int, rng: Random) -> Trial:
    """A service that never decides: it shows new hypotheses for ever, or ignores a noise."""
    said = replace(_talk(rng), noise=1)
    if rng.random() < 0.5:
        # The last word is not yet final.
        said = replace(said, blocks=said.words[-1].last)
        return Trial(seed, said, ["talks on"], [NeverDecides()], live=False)
    hum = (said.blocks, said.blocks + rng.randint(10, 40))
    said = replace(said, blocks=hum[1] + rng.randint(0, 20), hums=(hum,))
    return Trial(seed, said, [], [], hooks=ShutGate(), live=False, expected=Expected(unseen=True))


def _draw_shown_once(seed: int, rng: Random) -> Trial:
    """A hypothesis of a sound after the last word, in which the next connection hears nothing."""
    said = _talk(rng)
    hum = (said.blocks, said.blocks + rng.randint(20, 40))
    said = replace(said, blocks=hum[1] + rng.randint(20, 60), hums=(hum,))
    start, end = (round(block * SECONDS, 2) for block in hum)
    flushes = {end + 0.1: 1} if rng.random() < 0.5 else {}
    return Trial(
        seed,
        said,
        ["FIN"],
        [],
        hooks=ShownOnce(start, end),
        live=rng.random() < 0.6,
        flushes=flushes,
        expected=Expected(unseen=True),
        takes_back=True,
    )


def _draw_flushes_in_an_outage(seed: int, rng: Random) -> Trial:
    """A flush with every frame of a pause, while there is no connection.

    The line is silent: until its noise is known, noise could be words.
    """
    said = replace(_talk(rng), noise=rng.choice((0, 1)))
    at = rng.choice(_ends(said)) + 0.05
    faults = [Disconnect(Moment.FLUSH), Refuse(503, delay=1.0)]
    flushes = {at + n * 0.05: 1 for n in range(15)}
    return Trial(seed, said, ["FIN", "refused"], faults, flushes=flushes)


def _draw_change_at_the_end(seed: int, rng: Random) -> Trial:
    """Options that change when all is sent and the last final is on its way."""
    late = Latency(round(rng.uniform(0.5, 4.0), 2))
    said = _talk(rng)
    return Trial(seed, said, [], [], ["late"], late, live=False, change_at_end=True)


def _draw_lagging(seed: int, rng: Random) -> Trial:
    """Late finals without usable times, and connections that end right after them."""
    kind = rng.choice(("no times", "an hour ahead"))
    times = WithoutTimes() if kind == "no times" else IMPOSSIBLE[kind]
    return Trial(
        seed,
        replace(_talk(rng), noise=rng.choice((1, 100)), peak=12000),
        ["FIN", "FIN"],
        [Disconnect(Moment.FINAL), Disconnect(Moment.FINAL)],
        ["slow", "impossible times"],
        Combined(Pace(0.8), times),
        live=rng.random() < 0.5,
    )


def _draw_useless_answers(seed: int, rng: Random) -> Trial:
    """Push-to-talk with impossible times, or with only empty responses."""
    trial = _draw_push_to_talk(seed, rng)
    if rng.random() < 0.5:
        times = IMPOSSIBLE[rng.choice(("reversed", "reversed", "negative"))]
        return replace(trial, beside=["impossible times"], hooks=times)
    return replace(
        trial,
        kinds=["line too long"] * 2,
        faults=[LongLine(), LongLine()],
        beside=["empty responses", "late finals"],
        hooks=Combined(Chatter(rng.randrange(1000), empty=True), Delay(0.5)),
    )


def _draw_long_file(seed: int, rng: Random) -> Trial:
    """A file longer than the audio that is kept, and a slow service.

    Either its connection ends, or it has to be left alone: that it says nothing in a long silence
    only shows that it is slow.
    """
    if rng.random() < 0.5:
        pace = rng.choice((0.5, 1.0))
        said = talk(*[1] * 10, word=0.4, gap=4.0, lead=round(pace * rng.uniform(17, 28), 1))
        return Trial(
            seed,
            replace(said, noise=0),
            [],
            [],
            ["slow"],
            Pace(pace),
            live=False,
            expected=Expected(most_connections=1),
        )
    said = talk(*[1] * 16, word=0.4, gap=4.0)
    drop = Disconnect(round(rng.uniform(0.5, 5), 2))
    return Trial(seed, said, ["FIN"], [drop], ["slow"], Pace(2.0), live=False)


def _draw_wrong_clock(seed: int, rng: Random) -> Trial:
    """A minute with a service whose clock is 5 % off, and connections that end."""
    said = talk(*[3, 2, 1] * 9, word=0.3, gap=1.4)
    whens = [round(rng.uniform(20, 50), 2), round(rng.uniform(2, 10), 2)]
    return Trial(
        seed,
        said,
        ["FIN", "FIN"],
        [Disconnect(when) for when in whens],
        ["drift"],
        Drift(rng.choice((-0.05, 0.05))),
        expected=Expected(time_error=_TIME_ERROR_OF_A_WRONG_CLOCK),
    )


def _draw_monologue(seed: int, rng: Random) -> Trial:
    """Speech with no pause but for breaths, for longer than the service waits for one."""
    words, at = in_one_breath(rng, rng.randint(0, 100), rng.randint(5, 9))
    said = replace(
        _at_some_level(rng, words, at + _SHORTEST_GAP), peak=12000, noise=rng.choice((0, 1))
    )
    at_second = round(rng.uniform(2.0, said.seconds - 3.0), 2)
    trial = Trial(seed, said, [], [], live=rng.random() < 0.5)
    if rng.random() < 0.5:
        return replace(trial, kinds=["FIN"], faults=[Disconnect(at_second)])
    return replace(trial, hooks=Outage(at_second, round(rng.uniform(1.0, 15.0), 1)))


def _draw_no_service(seed: int, rng: Random) -> Trial:
    """A gateway that has no service behind it for a while, in a call or in a file."""
    refusal = rng.choice((StatusError(14, "no backend"), StatusError(13, "no route"), Drop))
    said = _talk(rng, utterances=4)
    # After the first final: a service that was never there is given up sooner.
    at = round(_ends(said)[0] + rng.uniform(0.9, 5.0), 2)
    away = Outage(at, round(rng.uniform(2.0, 20.0), 1), refusal)
    return Trial(seed, said, [], [], hooks=away, live=rng.random() < 0.7)


def _draw_late_audio(seed: int, rng: Random) -> Trial:
    """The caller's audio stops in the middle of a word, and catches up on a new connection.

    It does so before the audio counts as over: then the utterance would be flushed.
    """
    said = _talk(rng, utterances=3)
    word = rng.choice(said.words)
    at = (word.start + word.end) / 2
    late = round(rng.uniform(0.8, 1.7), 2)
    # A final that comes meanwhile can not know how much of the delay the audio will catch up.
    expected = Expected(time_error=late)
    ms = rng.choice((10, 20, 50))
    trial = Trial(seed, said, [], [], late={at: late}, ms=ms, expected=expected)
    if rng.random() < 0.5:
        return replace(trial, changes=[at + round(rng.uniform(0.0, 0.3), 2)])
    return replace(trial, kinds=["FIN"], faults=[Disconnect(at + round(rng.uniform(0.0, 0.3), 2))])


def _draw_new_key(seed: int, rng: Random) -> Trial:
    """A key that is changed during an outage; after it, the service takes only the new one."""
    said = _talk(rng, utterances=3)
    seconds = round(rng.uniform(1.0, 15.0), 1)
    # After the first final: a service that was never there is given up sooner.
    at = round(_ends(said)[0] + rng.uniform(0.9, 5.0), 2)
    new_key = NewKey(at, seconds, round(rng.uniform(0.0, seconds - 0.5), 2))
    return Trial(seed, said, [], [], new_key=new_key)


def _draw_noise_that_stops(seed: int, rng: Random) -> Trial:
    """A noise as loud as the words after it, or louder; each word is flushed right after its sound.

    Such as music on hold, or the ringing at the start of a call.
    """
    # No word begins where the service decides, each 5 s, that it heard nothing: it drops its
    # look-ahead then.
    lead, said = rng.randrange(570, 800, 5), _answers(rng, 50)
    words = tuple(Spoken(word.text, word.first + lead, word.last + lead) for word in said.words)
    noisy_to = words[0].first - rng.randint(12, 40)
    noise = round(said.peak * rng.choice((0.5, 1.0, 2.0)))
    said = Talk(words, words[-1].last, said.peak, min(noise, 32767), noisy_to=noisy_to)
    return Trial(seed, said, [], [], presses=[word.end for word in words])


def _draw_silence_limit(seed: int, rng: Random) -> Trial:
    """A service that ends connections in which nobody speaks, and a caller who mostly listens."""
    said = _talk(rng, utterances=2, lead=rng.randint(100, 3000))
    later = rng.randint(1000, 4000)
    first = said.words[0].last + 200
    words = tuple(
        word
        if word.last < first
        else replace(word, first=word.first + later, last=word.last + later)
        for word in said.words
    )
    said = replace(said, words=words, blocks=said.blocks + later, noise=0)
    limit = SilenceLimit(round(rng.uniform(7.0, 20.0), 1), rng.choice((None, *_ROTATION)))
    return Trial(seed, said, [], [], hooks=limit)


def _draw_limit_in_quiet(seed: int, rng: Random) -> Trial:
    """A pause, or a lead, that is longer than the service lets anybody be silent.

    The service works faster than speech, or there is an outage in the pause, so that a connection
    is sent more silence at once than the limit allows. In noise, the service would give up each 5 s
    as well, perhaps just as a word begins.
    """
    limit = round(rng.uniform(7.0, 20.0), 1)
    live, interims = rng.random() < 0.5, rng.random() < 0.5
    # No more of a file is sent ahead of the service.
    pause = round(100 * min(limit * rng.uniform(1.0, 3.0), 60.0 if live else 25.0))
    lead = rng.choice((50, pause))
    first = Spoken("w0", lead, lead + rng.randint(15, 45))
    second = first.last + (pause if lead == 50 else rng.randint(150, 400))
    words = (first, Spoken("w1", second, second + 40), Spoken("w2", second + 40, second + 80))
    said = Talk(words, second + 180, 12000, 0)
    if lead == 50 and rng.random() < 0.5:
        said = replace(said, hums=(_cough(rng, first.last, second),))
    hooks: list[Hooks] = [SilenceLimit(limit, rng.choice((None, *_ROTATION)))]
    if not live:
        hooks.append(Pace(rng.choice((2.0, 4.0, 10.0))))
    elif lead == 50 and rng.random() < 0.8:
        # The service has answered before, so that the call is under way.
        out_from = round(first.end + rng.uniform(1.5, pause / 100), 2)
        hooks.append(Outage(out_from, round(rng.uniform(1.0, 18.0), 2)))
    return Trial(seed, said, [], [], hooks=Combined(*hooks), live=live, interims=interims)


def _cough(rng: Random, start: int, stop: int) -> tuple[int, int]:
    """Return where somebody coughs in a long pause between two blocks.

    After 5 s without a word the service gives up, and would cut a word that begins just then.
    """
    at = start + rng.randint(100, stop - start - 580)
    return at, at + rng.randint(8, 40)


def _draw_rotation_in_quiet(seed: int, rng: Random) -> Trial:
    """A connection that ends after long quiet, in which somebody coughed, or in the words after it.

    A service that is not much faster than speech would be busy with the quiet for long.
    """
    first = Spoken("w0", 50, 50 + rng.randint(15, 45))
    second = first.last + rng.randint(700, 4500)
    words = [first]
    at = second
    for _ in range(rng.randint(1, 4)):
        words.append(Spoken(f"w{len(words)}", at, at + rng.randint(15, 45)))
        at = words[-1].last
    said = Talk(tuple(words), at + 180, 12000, 0)
    if rng.random() < 0.8:
        said = replace(said, hums=(_cough(rng, first.last, second),))
    ends = round(rng.uniform(second / 100 - 3.0, at / 100 + 0.5), 2)
    flushes = {round(at / 100 + rng.uniform(0.1, 0.4), 2): 1} if rng.random() < 0.5 else {}
    hooks = Combined(PerConnection(Disconnect(ends)), Pace(rng.choice((1.3, 2.0, 4.0, 10.0))))
    interims = rng.random() < 0.7
    return Trial(seed, said, [], [], hooks=hooks, live=True, interims=interims, flushes=flushes)


def _draw_coughs(seed: int, rng: Random) -> Trial:
    """Coughs so far apart that the service may say of each that it holds no word.

    Then there are words, and the connection ends in them, so that their hypothesis is shown while
    the next one is sent the coughs again. Or nothing follows, and the coughs are asked about.
    """
    words, coughs, at = [Spoken("w0", 50, 50 + rng.randint(15, 45))], [], 100
    for _ in range(rng.randint(2, 5)):
        at += rng.randint(600, 900)
        coughs.append((at, at + rng.randint(8, 30)))
        at = coughs[-1][1]
    pace, interims = Pace(rng.choice((1.3, 2.0, 4.0, 10.0))), rng.random() < 0.6
    if rng.random() < 0.3:
        said = Talk(tuple(words), at + rng.randint(20, 400), 12000, 0, hums=tuple(coughs))
        return Trial(seed, said, [], [], hooks=pace, live=rng.random() < 0.5, interims=interims)
    at = first = at + rng.randint(700, 1200)
    for _ in range(rng.randint(2, 4)):
        words.append(Spoken(f"w{len(words)}", at, at + rng.randint(25, 45)))
        at = words[-1].last
    said = Talk(tuple(words), at + 180, 12000, 0, hums=tuple(coughs))
    ends = round(rng.uniform(first / 100 + 0.9, at / 100 + 0.4), 2)
    flushes = {round(at / 100 + rng.uniform(0.1, 0.4), 2): 1} if rng.random() < 0.5 else {}
    hooks = Combined(PerConnection(Disconnect(ends)), pace)
    return Trial(seed, said, [], [], hooks=hooks, live=True, interims=interims, flushes=flushes)


def _draw_word_after_final(seed: int, rng: Random) -> Trial:
    """A short word right after one that was flushed; then the service is away, and comes and goes.

    The word is sent again and again, and no connection lives long enough to answer.
    """
    first = Spoken("w0", 50, 50 + rng.randint(20, 45))
    start = first.last + rng.randint(5, 20)
    short = Spoken("w1", start, start + rng.randint(10, 25))
    last = short.last + rng.randint(700, 1500)
    words = (first, short, Spoken("w2", last, last + 40))
    ends = round(short.end + rng.uniform(0.05, 0.4), 2)
    lives = [round(rng.uniform(0.1, 1.0), 2) for _ in range(rng.randint(2, 3))]
    away = ComesAndGoes(ends, round(rng.uniform(3.5, 6.0), 1), lives)
    return Trial(
        seed,
        Talk(words, last + 220, 12000, 0),
        [],
        [],
        hooks=Combined(away, Pace(rng.choice((1.3, 2.0)))),
        live=True,
        ms=rng.choice((10, 20)),
        interims=rng.random() < 0.5,
        flushes={first.end + 0.02: 1},
    )


def _draw_without_interims(seed: int, rng: Random) -> Trial:
    """What happens to others, to a client that wants no hypotheses."""
    scenes = (_draw_freely, _draw_push_to_talk, _draw_silence_limit, _draw_no_service)
    trial = rng.choice(scenes)(seed, rng)
    # Without them, a service that says nothing is waited for twice as long.
    silent = sum(kind in SILENT for kind in trial.kinds)
    return replace(trial, interims=silent > 1)


def _draw_breaths(seed: int, rng: Random) -> Trial:
    """A caller who breathes out after most words, on a connection that ends or not."""
    said = _talk(rng, utterances=10)
    next_starts = {first.last: second.first for first, second in pairwise(said.words)}
    hums = tuple(
        (last + 2, last + rng.randint(10, 60))
        for last, first in next_starts.items()
        if first - last >= 80 and rng.random() < 0.8
    )
    trial = Trial(seed, replace(said, hums=hums, peak=12000, noise=rng.choice((1, 100))), [], [])
    if rng.random() < 0.5:
        return trial
    return replace(trial, kinds=["FIN"], faults=[Disconnect(round(rng.uniform(5.0, 20.0), 2))])


def _draw_late_flush(seed: int, rng: Random) -> Trial:
    """A flush, or two, right after the end of a pause: a VAD is 0.1 s late.

    The pause is within a sentence, or after one that is final; an option may just have changed.
    """
    at = rng.choice((5, 60, 160))
    shortest, longest = rng.choice(((26, 36), (120, 200)))
    words: list[Spoken] = []
    starts: list[float] = []
    for _ in range(6):
        starts.append(at / 100)
        for _ in range(rng.randint(1, 4)):
            words.append(Spoken(f"w{len(words)}", at, at + rng.randint(25, 60)))
            at = words[-1].last
        at += rng.randint(shortest, longest)
    begun, twice = starts[rng.randint(1, 4)], rng.random() < 0.5
    # Less than 60 ms of sound counts as nothing said: a flush would be answered at once.
    flushed = round(begun + rng.choice((0.06, 0.08) if twice else (0.02, 0.04, 0.06, 0.08)), 2)
    flushes = {flushed: 1}
    if twice:
        flushes[round(flushed + rng.uniform(0.05, 0.25), 2)] = 1
    said = Talk(tuple(words), at + _SHORTEST_GAP, 12000, rng.choice((1, 100)))
    trial = Trial(seed, said, [], [], flushes=flushes, ms=rng.choice((10, 20, 50)))
    if rng.random() < 0.5:
        return trial
    # The options change just before the flush, so there is no connection then.
    slow = StalledHandshake(round(rng.uniform(0.1, 0.4), 2))
    return replace(trial, hooks=slow, changes=[round(flushed - rng.uniform(0, 0.1), 2)])


def _draw_change_after_flushes(seed: int, rng: Random) -> Trial:
    """Options that change in a sentence, after others that were flushed and are final."""
    at, ends = 100, list[float]()
    words: list[Spoken] = []
    for _ in range(4):
        for _ in range(rng.randint(2, 4)):
            words.append(Spoken(f"w{len(words)}", at, at + rng.randint(20, 45)))
            at = words[-1].last
        ends.append(at / 100)
        at += rng.randint(150, 400)
    word = rng.choice([word for word in words if word.start > ends[0]])
    change = round(word.start + rng.uniform(0.35, 0.5), 2)
    flushes = {round(end + 0.5, 2): 1 for end in ends if end + 0.5 < change}
    said = Talk(tuple(words), at, 12000, rng.choice((100, 300)))
    return Trial(seed, said, [], [], flushes=flushes, changes=[change], ms=rng.choice((20, 50)))


def _draw_slow_turns(seed: int, rng: Random) -> Trial:
    """Turns that are flushed one by one, and a service that is hardly faster than speech."""
    said = talk(*[1] * 14, word=round(rng.uniform(0.5, 1.2), 2), gap=round(rng.uniform(1.3, 2), 2))
    flushes = {round(word.end + 0.4, 2): 1 for word in said.words}
    expected = Expected(latest_final=9.0)
    pace = Pace(round(rng.uniform(1.0, 1.5), 2))
    return Trial(seed, said, [], [], hooks=pace, flushes=flushes, expected=expected)


def _draw_mutes(seed: int, rng: Random) -> Trial:
    """A microphone that is muted once or more before words in which the connection changes.

    The caller can have coughed before, and the noise can end there.
    """
    words = [Spoken("w0", 50, 85), Spoken("w1", 85, 120)]
    quiet, mutes = rng.randint(50, 400), rng.choice((1, 1, 1, 2, 3, 5))
    # Where the audio stops, in blocks.
    stops = [120 + quiet]
    # With noise between several mutes, the service can give up at the onset of a word, live too.
    coughs = quiet > 150 and mutes == 1 and rng.random() < 0.7
    cough = stops[0] - rng.randint(28, 90)
    for _ in range(mutes - 1):
        stops.append(stops[-1] + rng.randint(15, 100))
    at = stops[-1] + rng.randint(10, 200)
    change = round(at / 100 + rng.uniform(0.1, 0.9), 2)
    for _ in range(rng.randint(3, 6)):
        words.append(Spoken(f"w{len(words)}", at, at + rng.randint(25, 45)))
        at = words[-1].last
    said = Talk(
        tuple(words),
        at + _SHORTEST_GAP,
        12000,
        rng.choice((1, 100, 300)),
        hums=((cough, cough + 8),) if coughs else (),
        noisy_to=stops[0] if rng.random() < 0.3 else None,
    )
    pauses = {stop / 100: round(rng.uniform(1.2, 4.0), 1) for stop in stops}
    trial = Trial(seed, said, [], [], hooks=rng.choice((Hooks(), Pace(1.0))), pauses=pauses)
    if rng.random() < 0.5:
        return replace(trial, changes=[change])
    return replace(trial, kinds=["FIN"], faults=[Disconnect(change)])


# The part of streams that are drawn from scenes which are not in the table: by chance of their own,
# so that the other seeds are the streams that they were.
_OF_THESE = 0.05
_QUIET_SCENES = (
    _draw_limit_in_quiet,
    _draw_without_interims,
    _draw_rotation_in_quiet,
    _draw_coughs,
    _draw_word_after_final,
)

_SCENES: dict[Callable[[int, Random], Trial], int] = {
    _draw_freely: 58,
    _draw_late_audio: 1,
    _draw_new_key: 1,
    _draw_noise_that_stops: 1,
    _draw_monologue: 1,
    _draw_no_service: 1,
    _draw_stall: 1,
    _draw_lagging: 1,
    _draw_useless_answers: 1,
    _draw_long_file: 1,
    _draw_push_to_talk: 10,
    _draw_in_time: 2,
    _draw_no_decision: 1,
    _draw_cut: 2,
    _draw_noisy_line: 2,
    _draw_full_socket: 1,
    _draw_limit_at_onset: 2,
    _draw_false_end: 2,
    _draw_shown_once: 1,
    _draw_flushes_in_an_outage: 1,
    _draw_change_at_the_end: 1,
    _draw_wrong_clock: 1,
    _draw_silence_limit: 1,
    _draw_breaths: 1,
    _draw_late_flush: 1,
    _draw_change_after_flushes: 1,
    _draw_slow_turns: 1,
    _draw_mutes: 2,
}
"""The scenes, and how many of a hundred streams are such a scene."""


# -- what is said --------------------------------------------------------------------------------


def _talk(rng: Random, utterances: int = 0, lead: int | None = None) -> Talk:
    at = rng.randint(0, 100) if lead is None else lead
    words: list[Spoken] = []
    for _ in range(utterances or rng.randint(1, 4)):
        for _ in range(rng.randint(1, 5)):
            words.append(Spoken(f"w{len(words)}", at, at + rng.randint(10, 45)))
            at = words[-1].last
        at += rng.randint(_SHORTEST_GAP, _LONGEST_GAP)
    return _at_some_level(rng, words, at)


def _answers(rng: Random, ms: int) -> Talk:
    """Return words, some of them soft and some after an "er", for push-to-talk.

    The button is released at the end of a frame of `ms`. Noise is low, or soft words are not heard.
    """
    step, at = ms // 10, 0
    words: list[Spoken] = []
    hums: list[tuple[int, int]] = []
    for _ in range(rng.randint(2, 5)):
        at += rng.choice((0, 0, 2, 10, 30, 100)) // step * step
        if rng.random() < 0.2:
            hums.append((at, at + rng.randint(20, 40) // step * step))
            at = hums[-1][1]
        softer = rng.choice((1, 1, 1, 4))
        words.append(Spoken(f"w{len(words)}", at, at + rng.randint(10, 40) // step * step, softer))
        at = words[-1].last
    said = replace(_at_some_level(rng, words, at), hums=tuple(hums))
    return replace(said, noise=min(said.noise, said.peak // 40))


def _at_some_level(rng: Random, words: list[Spoken], blocks: int) -> Talk:
    peak = rng.choice((12000, 12000, 32767, 200, 100, 30))
    noise = rng.choice((0, 1, peak // 40, peak // 10))
    return Talk(tuple(words), blocks, peak, noise)


def _ends(said: Talk) -> list[float]:
    """Return when the utterances end, seconds."""
    following = [word.first for word in said.words[1:]] + [said.blocks]
    return [
        word.end
        for word, after in zip(said.words, following, strict=True)
        if after - word.last >= _SHORTEST_GAP
    ]
