"""LiveKit's own worker pool: calls in processes of their own, one of which is killed.

All of it is one run of an `AgentServer`, since starting processes is what costs: five calls at
once against one local server. Three of them go on to their end, one is killed, one is closed in
mid-sentence, and the server drains meanwhile. Each test looks at some of what came of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import sys
import threading
import time
import wave
from collections import Counter
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import psutil
import pytest

from livekit.agents import AgentServer
from livekit.agents.ipc.supervised_proc import SupervisedProc
from livekit.plugins.tiro.testing import TiroServer
from livekit.plugins.tiro.testing.recognizer import Hypothesis, Word
from livekit.protocol import agent

from .support import jobs
from .support.harness import until
from .support.numbered import (
    BLOCK,
    RATE,
    SECONDS,
    NumberedRecognition,
    NumberedRecognizer,
    Spoken,
    talk,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only there is a forkserver the default"),
]

EXAMPLES = ("voice_agent", "transcriber", "fallback")
FIRST = 2
"""Words of the first utterance of each call."""
CALLS = {"closed": 18, **dict.fromkeys((*EXAMPLES, "killed"), 8)}
"""Words of the second one. The one that is closed would go on for longer than all others."""
# Each call has words of its own: a part of one long talk.
TALK = talk(*(count for second in CALLS.values() for count in (FIRST, second)), word=0.2, gap=0.9)
# s that anything may take; the machine is shared.
PATIENCE = 40.0


class PatientRecognizer(NumberedRecognizer):
    """Hears a word as soon as all of its samples came, once, whatever silence is between them.

    The framework's VAD takes numbered audio now for speech and now for silence, so it makes the
    plugin flush in mid-word, which sends silence.
    """

    def __call__(self, config: object) -> NumberedRecognition:
        return _PatientRecognition(self._said.words, self._said.peak)


class _PatientRecognition(NumberedRecognition):
    def final(self, alternatives: int) -> Sequence[Hypothesis]:
        heard = self._hear(whole=True)
        said = {
            number
            for word in self._words
            if any(word.text == other.text.lstrip("#") for other in heard)
            for number in range(word.first, word.last)
        }
        self._heard = [(number, time) for number, time in self._heard if number not in said]
        self._last_loud = None
        return [heard] if heard else []

    def _hear(self, *, whole: bool) -> Hypothesis:
        times = dict(self._heard)
        came = Counter(number for number, _ in self._heard)
        heard = []
        for word in self._words:
            if all(number in came for number in range(word.first, word.last)):
                is_once = all(came[number] == 1 for number in range(word.first, word.last))
                text = word.text if is_once else "#" + word.text
                heard.append(Word(text, times[word.first], times[word.last - 1] + SECONDS))
        return tuple(heard)


@dataclass
class WorkerCall:
    """One of the calls, as seen from outside."""

    name: str
    path: Path
    words: tuple[Spoken, ...]
    pid: int = 0
    exit_code: int | None = None

    @property
    def report(self) -> Path:
        """The file that its process writes to."""
        return self.path / f"{self.name}.jsonl"

    @property
    def notes(self) -> list[dict[str, Any]]:
        """What its process wrote down."""
        if not self.report.exists():
            return []
        # The last line may be under way.
        return [json.loads(line) for line in self.report.read_text("utf-8").split("\n")[:-1]]

    def noted(self, kind: str) -> list[Any]:
        """Return the notes of one kind."""
        return [note[kind] for note in self.notes if kind in note]

    @property
    def heard(self) -> list[str]:
        """The words of its finals."""
        return " ".join(self.noted("final")).split()

    @property
    def said(self) -> list[str]:
        """The words of its wav."""
        return [word.text for word in self.words]

    @property
    def shown(self) -> list[str]:
        """The words of its last hypothesis."""
        return " ".join(self.noted("interim")[-1:]).split()

    def order(self, base_url: str) -> jobs.Order:
        """Write its wav: half a second of silence, its words, and nothing after them."""
        wav = self.path / f"{self.name}.wav"
        start = self.words[0].first - 50
        with wave.open(str(wav), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(TALK.pcm()[BLOCK * start : BLOCK * self.words[-1].last].tobytes())
        return jobs.Order(
            example=self.name if self.name in EXAMPLES else "voice_agent",
            wav=str(wav),
            base_url=base_url,
            report=str(self.report),
            begin=str(self.path / "begin"),
            words=len(self.words),
            killed_after=FIRST if self.name == "killed" else None,
        )


@dataclass(frozen=True)
class Belongings:
    """What this process has."""

    children: frozenset[int]
    sockets: frozenset[str]
    threads: frozenset[int | None]

    @classmethod
    def now(cls) -> Belongings:
        """Look."""
        files = set()
        for descriptor in os.listdir("/proc/self/fd"):
            # The file descriptor of the listing itself is gone.
            with suppress(FileNotFoundError):
                files.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        return cls(
            frozenset(child.pid for child in psutil.Process().children()),
            frozenset(name for name in files if name.startswith("socket:")),
            frozenset(thread.native_id for thread in threading.enumerate()),
        )


@dataclass
class PoolOutcome:
    """What came of the run."""

    calls: dict[str, WorkerCall]
    at_drain: list[str] = field(default_factory=list)
    """The calls that were under way when the server was told to drain."""
    closed_at: float = 0.0
    """When the worker was told to close one of them, on the clock of all processes."""
    at_drained: list[str] = field(default_factory=list)
    """The calls that were under way when it said that it was drained."""
    errors: list[str] = field(default_factory=list)
    """What was logged as an error, here or in a job."""
    left: list[Any] = field(default_factory=list)
    """Children, sockets and threads that were not there before."""


class _Errors(logging.Handler):
    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        self._errors.append(record.getMessage())


@contextmanager
def forkserver(errors: list[str]) -> Iterator[None]:
    """Set what job processes inherit; end what multiprocessing keeps for more of them."""
    # A VAD takes 25 ms in each job that needs one; the turn detector beside it has 244 MB.
    environment = {"LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE": "0"}
    logger, handler = logging.getLogger("livekit"), _Errors(errors)
    server: Any = multiprocessing.forkserver._forkserver
    tracker: Any = multiprocessing.resource_tracker._resource_tracker
    is_tracking = tracker._fd is not None
    logger.addHandler(handler)
    try:
        with mock.patch.dict(os.environ, environment):
            for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
                os.environ.pop(name, None)
            yield
    finally:
        logger.removeHandler(handler)
        server._stop()
        if not is_tracking:
            tracker._stop()


async def _join(process: Any, join: Any = SupervisedProc.join) -> None:
    """Wait for a process, and give the loop a turn.

    `AgentServer.drain` waits for one process after the other, and again for those that are still
    in the pool. Waiting for a process that has ended gives the loop no turn, and without a turn the
    process is never taken out of the pool: when two end at once, `drain` would never return, and
    nothing else would run.
    """
    await join(process)
    await asyncio.sleep(0)


@asynccontextmanager
async def agent_server(calls: dict[str, WorkerCall]) -> AsyncIterator[AgentServer]:
    """Run a worker that no LiveKit server knows of, and note how its jobs end."""
    server = AgentServer(
        host="127.0.0.1",
        port=0,
        num_idle_processes=len(calls),
        # The default load has a thread for good.
        load_fnc=lambda: 0.0,
        load_threshold=math.inf,
        initialize_process_timeout=PATIENCE,
        preload_modules=[jobs.__name__],
        setup_fnc=jobs.prewarm,
    )
    server.rtc_session(jobs.entrypoint)
    started = asyncio.Event()
    server.once("worker_started", lambda: started.set())
    running = asyncio.create_task(server.run(unregistered=True))
    await asyncio.wait_for(started.wait(), PATIENCE)
    # Otherwise it would start a spare process for each that gets a job.
    server._proc_pool.set_target_idle_processes(0)

    def note(process: Any) -> None:
        call = calls[_name(process.running_job)]
        call.pid, call.exit_code = process.pid, process.exitcode

    server._proc_pool.on("process_closed", note)
    try:
        with mock.patch.object(SupervisedProc, "join", _join):
            yield server
    finally:
        await server.aclose()
        await running


def _name(info: Any) -> str:
    """Return whose job it is."""
    report: str = json.loads(info.job.room.name)["report"]
    return os.path.basename(report).partition(".")[0]


async def run(outcome: PoolOutcome) -> None:
    """Have five calls at once."""
    calls = outcome.calls
    async with (
        TiroServer(recognizers={"is": PatientRecognizer(TALK)}, interim_interval=0.05) as service,
        agent_server(calls) as server,
    ):
        for call in calls.values():
            await server.simulate_job(call.order(service.base_url).room, fake_job=True)
        await until(lambda: all(call.noted("ready") for call in calls.values()), PATIENCE)
        (calls["closed"].path / "begin").touch()
        await until(lambda: len(calls["closed"].shown) >= FIRST + 1, PATIENCE)
        (job_id,) = [i.job.id for i in server.active_jobs if _name(i) == "closed"]
        termination = agent.JobTermination(job_id=job_id)
        outcome.closed_at = time.monotonic()
        closing = asyncio.create_task(server._handle_termination(termination))
        outcome.at_drain = [_name(info) for info in server.active_jobs]
        await server.drain(timeout=round(PATIENCE))
        outcome.at_drained = [_name(info) for info in server.active_jobs]
        await closing
        await until(lambda: all(c.closed_at is not None for c in service.connections))
        assert len(service.connections) == len(calls)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> PoolOutcome:
    """Return what came of five calls at once."""
    path = tmp_path_factory.mktemp("calls")
    words = iter(TALK.words)
    outcome = PoolOutcome({})
    for name, second in CALLS.items():
        own = tuple(next(words) for _ in range(FIRST + second))
        outcome.calls[name] = WorkerCall(name, path, own)
    before = Belongings.now()
    with forkserver(outcome.errors):
        asyncio.run(run(outcome))
    after = Belongings.now()
    outcome.left = [
        *(after.children - before.children),
        *(after.sockets - before.sockets),
        *(after.threads - before.threads),
    ]
    return outcome


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_call_hears_its_own_words(outcome: PoolOutcome, name: str) -> None:
    call = outcome.calls[name]
    assert call.heard == call.said
    assert call.exit_code == 0
    final, _, ended = call.notes[-3:]
    took = ended["at"] - final["at"]
    assert took < jobs.LAST_FINAL, "or the flush at its end went unanswered"


def test_the_call_that_is_killed_takes_nobody_with_it(outcome: PoolOutcome) -> None:
    killed = outcome.calls["killed"]
    assert killed.exit_code == jobs.KILLED
    assert killed.heard == killed.said[:FIRST]
    assert killed.shown == killed.said[FIRST : FIRST + len(killed.shown)]
    assert not killed.noted("ended")
    (error,) = outcome.errors
    assert error.endswith(f"exit code {jobs.KILLED}"), "of no other call"


def test_a_call_that_is_closed_in_mid_sentence_yields_its_words_before_it_ends(
    outcome: PoolOutcome,
) -> None:
    closed = outcome.calls["closed"]
    count = len(closed.heard)
    assert closed.heard == closed.said[:count]
    assert FIRST + len(closed.shown) <= count < len(closed.said), "all that was shown"
    last = closed.notes[-3:]
    assert [next(iter(note)) for note in last] == ["final", "closed", "ended"]
    waited = last[0]["at"] - outcome.closed_at
    assert waited < jobs.LAST_FINAL, "or the framework made it of the hypothesis"
    assert closed.exit_code == 0


def test_drain_waits_for_the_calls(outcome: PoolOutcome) -> None:
    assert {*EXAMPLES, "closed"} <= set(outcome.at_drain)
    assert outcome.at_drained == []
    assert [outcome.calls[name].noted("ended") for name in EXAMPLES] == [["hung up"]] * 3


def test_no_process_socket_or_thread_is_left(outcome: PoolOutcome) -> None:
    assert outcome.left == []
    pids = [call.pid for call in outcome.calls.values()]
    assert all(pids)
    assert not any(map(psutil.pid_exists, pids))


def test_the_certificates_are_read_before_the_call(outcome: PoolOutcome) -> None:
    """By `prewarm` of examples/voice_agent.py."""
    assert [call.noted("certificates") for call in outcome.calls.values()] == [[1]] * len(CALLS)
