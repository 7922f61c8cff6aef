"""The examples, driven: their own code, with the local server behind it and stand-ins around it."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from livekit.agents import AgentSession
from livekit.plugins.tiro.testing import ScriptedRecognizer, TiroServer, faults
from livekit.protocol import agent

from .support.harness import until
from .support.room_fakes import Room, job_in
from .support.session_fakes import (
    Answers,
    Loudspeaker,
    Voice,
    in_virtual_time,
    local_server,
    new_stt,
    speech,
)

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ["voice_agent", "transcriber", "fallback"]
KEYS = ("TIRO_API_KEY", "TIRO_SPEECH_KEY", "OPENAI_API_KEY")
SERVER = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
TURN = speech()
SAID = "Einn tveir þrír fjórir"


@pytest.fixture
def openai(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for livekit-plugins-openai, which need not be installed."""
    module = ModuleType("livekit.plugins.openai")
    module.LLM = lambda **_: Answers()  # type: ignore[attr-defined]
    module.TTS = lambda **_: Voice()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "livekit.plugins.openai", module)
    return module


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import an example as if for the first time."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


class Job:
    """An example at work in a room with the local server behind it.

    Args:
        example: The imported example.
        monkeypatch: Used for what the example finds around it.
    """

    def __init__(self, example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.example = example
        self.room = Room()
        start = AgentSession.start

        async def started(session: AgentSession[None], *args: Any, **options: Any) -> Any:
            """Give a session that speaks a loudspeaker of its own."""
            if session.tts is not None:
                session.output.audio = Loudspeaker()
            return await start(session, *args, **options)

        monkeypatch.setattr(AgentSession, "start", started)


def point_at(server: TiroServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what `serve` prints."""
    monkeypatch.setenv("TIRO_BASE_URL", server.base_url)
    monkeypatch.setenv("TIRO_API_KEY", "test")


@in_virtual_time
async def test_voice_agent_greets_hears_and_answers(
    openai: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "voice-agent")
    async with local_server() as server:
        point_at(server, monkeypatch)
        job = Job(load("voice_agent", monkeypatch), monkeypatch)
        async with job_in(job.room) as ctx:
            caller = job.room.join("gestur")
            await job.example.entrypoint(ctx)
            await until(lambda: job.room.finals("agent") == ["Já."])
            await caller.microphone.say(TURN)
            await until(lambda: job.room.finals("agent") == ["Já.", "Já."])
            assert job.room.finals("gestur") == [SAID]
            assert server.connections[0].config["languageCode"] == "is-IS"
    (record,) = [each for each in caplog.records if each.name == "voice-agent"]
    told = json.loads(json.dumps({"usage": record.usage, "stt": record.stt}))  # type: ignore[attr-defined]
    used = next(each for each in told["usage"] if each["type"] == "stt_usage")
    assert used["audio_duration"] <= told["stt"]["audio_sent"]
    assert (told["stt"]["connections"], told["stt"]["finals"]) == (1, 1)


@in_virtual_time
async def test_transcriber_writes_down_each_participant(monkeypatch: pytest.MonkeyPatch) -> None:
    async with local_server() as server:
        point_at(server, monkeypatch)
        job = Job(load("transcriber", monkeypatch), monkeypatch)
        async with job_in(job.room) as ctx:
            first = job.room.join("anna")
            await job.example.entrypoint(ctx)
            await first.microphone.say(TURN)
            await until(lambda: job.room.finals("anna") == [SAID])
            second = job.room.join("birna")
            await until(lambda: len(server.connections) == 2)
            await asyncio.gather(first.microphone.say(TURN), second.microphone.say(TURN))
            await until(lambda: len(job.room.finals("anna")) == 2)
            await until(lambda: len(job.room.finals("birna")) == 1)
            assert job.room.finals("anna") == [SAID, "fimm sex sjö átta."]
            assert job.room.finals("birna") == [SAID]
            assert not job.room.finals("agent")
            interims = [p for p in job.room.published if not p.final]
            assert {p.identity for p in interims} == {"anna", "birna"}
            job.room.leave(second)
            await until(lambda: server.connections[1].closed_at is not None)
            assert server.connections[0].closed_at is None


@in_virtual_time
async def test_fallback_goes_on_with_the_second_provider(
    openai: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {"en": ScriptedRecognizer("one two three four", words_per_second=5)}
    down = faults.PerConnection(faults.Disconnect(2.5), then=faults.Refuse(503))
    async with local_server(hooks=down) as server, local_server(recognizers=numbers) as second:
        point_at(server, monkeypatch)
        other = new_stt(second, language="en-US")
        openai.STT = lambda **_: other  # type: ignore[attr-defined]
        job = Job(load("fallback", monkeypatch), monkeypatch)
        async with job_in(job.room) as ctx:
            caller = job.room.join("gestur")
            await job.example.entrypoint(ctx)
            await caller.microphone.say(TURN)
            await until(lambda: job.room.finals("agent") == ["Já."])
            await second.wait_for_connection()
            await caller.microphone.say(TURN)
            await until(lambda: job.room.finals("agent") == ["Já.", "Já."])
            assert job.room.finals("gestur") == [SAID, "one two three four"]
        await other.aclose()


# -- what is said of them -------------------------------------------------------------------------

README = (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_each_is_named() -> None:
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    assert files <= set(re.findall(r"`(?:examples/)?([\w.]+)`", README))


@pytest.mark.parametrize("name", NAMES)
def test_what_it_needs_is_named(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert set(re.findall(r"[A-Z]+(?:_[A-Z]+)+(?==)", source)) <= set(re.findall(r"\w+", README))


def test_the_command_is_taught_that_livekit_will_keep() -> None:
    """`dev` of Python; `lk agent dev`, which is for it now, takes the worker of that name."""
    files = [path for path in EXAMPLES.iterdir() if path.is_file()]
    texts = {path.name: path.read_text(encoding="utf-8") for path in files}
    assert [name for name, text in texts.items() if re.search(r"\.py dev\b", text)] == []
    assert "lk agent dev examples/voice_agent.py" in texts["README.md"]
    for name in NAMES:
        assert f"python examples/{name}.py start" in texts[f"{name}.py"]
        assert re.search(r"^server = AgentServer\(", texts[f"{name}.py"], re.MULTILINE)


def test_the_test_runs_with_the_extra_testing_alone() -> None:
    """As `pytest examples/test_my_agent.py`, with no plugin but pytest-asyncio and no warning."""
    options = "-p pytest_asyncio.plugin -p no:cacheprovider -W error --collect-only --quiet"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options.split(), "examples/test_my_agent.py"],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_the_agent_answers_what_the_caller_said" in done.stdout and not done.stderr


# -- as scripts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["console", "start", "dev", "connect", "start --url ws://a"])
def test_a_missing_key_is_named_in_one_line(
    name: str, command: str, openai: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in KEYS + SERVER:
        monkeypatch.delenv(key, raising=False)
    example = load(name, monkeypatch)
    monkeypatch.setattr(sys, "argv", [name, *command.split()])
    with pytest.raises(SystemExit) as caught:
        example.main()
    missing = "TIRO_API_KEY or TIRO_SPEECH_KEY"
    if name != "transcriber":
        missing += ", OPENAI_API_KEY"
    if command in ("start", "dev", "connect"):
        missing += ", LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET"
    assert caught.value.code == f"not set: {missing}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("given", [["download-files"], ["start", "--help"], []])
def test_what_does_no_work_needs_no_key(
    name: str, given: list[str], openai: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image is built without keys."""
    for key in KEYS + SERVER:
        monkeypatch.delenv(key, raising=False)
    example = load(name, monkeypatch)
    ran: list[Any] = []
    monkeypatch.setattr(example.cli, "run_app", ran.append)
    monkeypatch.setattr(sys, "argv", [name, *given])
    example.main()
    assert ran == [example.server]


@pytest.mark.parametrize("name", ["voice_agent", "fallback"])
def test_a_missing_package_is_named_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "livekit.plugins.openai", None)
    with pytest.raises(SystemExit, match="pip install .*livekit-plugins-openai"):
        load(name, monkeypatch)


@pytest.mark.parametrize("name", NAMES)
def test_the_three_ways_to_run_it(
    name: str,
    openai: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = load(name, monkeypatch)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.warns(DeprecationWarning), pytest.raises(SystemExit) as caught:
        example.main()
    assert not caught.value.code
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("console", "dev", "start"))
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 101


@pytest.mark.parametrize("name", NAMES)
async def test_its_worker_registers_with_a_livekit_server(
    name: str, openai: ModuleType, monkeypatch: pytest.MonkeyPatch, no_leaked_tasks: None
) -> None:
    """What `dev` and `start` come to, without the processes that they start for jobs."""
    registered = asyncio.Event()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        message = agent.WorkerMessage.FromString(await websocket.receive_bytes())
        assert message.register.type == agent.JobType.JT_ROOM
        answer = agent.ServerMessage(register=agent.RegisterWorkerResponse(worker_id="AW_1"))
        await websocket.send_bytes(answer.SerializeToString())
        registered.set()
        async for _ in websocket:
            pass
        return websocket

    app = web.Application()
    app.router.add_get("/agent", handle)
    async with TestServer(app) as livekit:
        monkeypatch.setenv("LIVEKIT_URL", f"ws://127.0.0.1:{livekit.port}")
        monkeypatch.setenv("LIVEKIT_API_KEY", "key")
        monkeypatch.setenv("LIVEKIT_API_SECRET", "secret-of-thirty-two-characters-.")
        worker = load(name, monkeypatch).server
        running = asyncio.create_task(worker.run(devmode=True))
        await asyncio.wait_for(registered.wait(), 8)
        await worker.aclose()
        await running
