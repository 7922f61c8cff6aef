"""The README is true: its commands run, its snippets run."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import venv
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from typer.testing import CliRunner

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, AgentSession
from livekit.agents.voice.io import AgentInput
from livekit.plugins import tiro
from livekit.plugins.tiro import cli
from livekit.plugins.tiro.cli.transcribe import Wanted
from livekit.plugins.tiro.testing import TiroServer

from .module_coverage import PACKAGE
from .support.harness import collect, finals, frames, read_wav

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
MAIN, TESTS = COMMANDS[:2]
INSTALL = "pip install ."
OWN = "python -m livekit.plugins.tiro "
OURS = [command for command in COMMANDS[1:] if command.startswith(OWN)]
PYTEST = [command for command in COMMANDS[2:] if " pytest " in command]
MODULES = [command for command in COMMANDS if " python -m " in command and command != MAIN]

# What makes a command short enough for a test: the last one of two equal options counts.
SHORT = {
    "tests.campaign": ["--streams", "2"],
    "tests.soak": ["--streams", "2", "--minutes", "0.02"],
    "benchmarks": ["--again"],
    "benchmarks.flush_latency": ["--calls", "1", "--rule", "0.5", "--way", "VAD"],
    "benchmarks.processes": ["--again"],
    "serve": ["--port", "0"],
    # Two minutes; tests/test_probe_command.py makes all of it, in virtual time.
    "probe": ["--help"],
}


def words_of(command: str) -> list[str]:
    """Return a command of the README without what puts it into an environment."""
    return shlex.split(re.sub(r"^(pip install uv && )?uv run (--extra \w+ )*", "", command))


def here(command: str) -> list[str]:
    """Return a command of the README as it runs in the present environment, made short."""
    program, *arguments = words_of(command)
    assert program == "python"
    short = [more for name, more in SHORT.items() if name in arguments]
    return [sys.executable, *arguments, *sum(short, [])]


def run(command: str, **environment: str) -> str:
    """Run a command of the README, and return what it prints."""
    done = subprocess.run(
        here(command),
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- each command is understood --------------------------------------------------------------------


def test_the_two_commands_come_first() -> None:
    assert "transcribe --local --language en-US tests/data/fox.wav" in MAIN
    assert TESTS == "pip install uv && uv run --extra dev pytest"
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert TESTS in ci, "what users run is what is checked"


def test_every_command_is_looked_at_here() -> None:
    assert {MAIN, TESTS, INSTALL, *OURS, *PYTEST, *MODULES} == set(COMMANDS)


def installs() -> dict[str, list[str]]:
    """All that this project tells anybody to install with pip, and where it does."""
    told: dict[str, list[str]] = {}
    for path in [ROOT / "README.md", *ROOT.glob("examples/*.py"), *PACKAGE.rglob("*.py")]:
        for found in re.findall(r"pip install ([^\n`\"&]+)", path.read_text(encoding="utf-8")):
            for wanted in shlex.split(found):
                told.setdefault(wanted, []).append(path.name)
    return told


def test_what_is_to_be_installed_is_there_for_who_has_a_clone() -> None:
    """This package is in no index as yet, and where it is, a clone is no worse."""
    own = metadata.requires("livekit-plugins-tiro") or []
    needed = {re.split(r"[^\w-]", each)[0] for each in own} | {"uv", "livekit-plugins-openai"}
    told = installs()
    assert "." in told and "pocketsphinx" in told
    for wanted in told.keys() - {"."}:
        extra = re.fullmatch(r"\.\[(\w+)\]", wanted)
        if extra:
            assert any(f"extra == '{extra[1]}'" in each for each in own), told[wanted]
        else:
            assert wanted in needed - {"livekit-plugins-tiro"}, told[wanted]


@pytest.mark.parametrize("command", OURS)
def test_a_command_of_ours(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options and what they name are taken; test_cli, test_doctor and test_serve run them."""
    ran: list[str] = []

    async def serve(*_: object) -> None:
        ran.append("serve")

    async def doctor(*_: object) -> int:
        ran.append("doctor")
        return 0

    async def probe(run: Any) -> None:
        ran.append("probe")
        run.report.is_finished = True

    # As attributes of the package, these are the commands.
    monkeypatch.setattr(sys.modules[f"{cli.__name__}.serve"], "_serve", serve)
    monkeypatch.setattr(sys.modules[f"{cli.__name__}.doctor"], "_report", doctor)
    monkeypatch.setattr(sys.modules[f"{cli.__name__}.probe.command"]._Run, "main", probe)
    # As `serve` tells a user to.
    monkeypatch.setenv("TIRO_API_KEY", "test")
    monkeypatch.setenv("TIRO_BASE_URL", "ws://127.0.0.1:8080/v2beta1")
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command.removeprefix(OWN))
    # There is no terminal at which to say yes.
    agreed = ["--yes"] if arguments[0] == "probe" else []
    result = CliRunner().invoke(cli.app, [*arguments, *agreed])
    assert result.exit_code == 0, result.output
    assert ran == arguments[:1]


def test_the_fault_it_shows_is_one_that_an_agent_gets_over() -> None:
    """No new connection mends a fault that every connection has."""
    shown = re.findall(r"--fault (\S+)", "\n".join(OURS))
    assert shown and all(spec.endswith("@1") for spec in shown)


@pytest.mark.filterwarnings("ignore:.* found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", MODULES)
def test_a_module_knows_its_options(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, module, *arguments = words_of(command)
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert [each for each in arguments if each.startswith("-") and each not in shown] == []


@pytest.mark.parametrize("command", PYTEST)
def test_the_tests_it_names_are_in_the_suite(command: str) -> None:
    """This run has them, or had them."""
    (path,) = words_of(command)[1:]
    assert (ROOT / path).is_file()
    assert Path(path).parts[0] in ("examples", "tests")


# -- each command, as it is run --------------------------------------------------------------------


def test_the_main_job() -> None:
    pytest.importorskip("pocketsphinx")
    assert run(MAIN).strip() == "the quick brown fox jumps over the lazy dog"


@pytest.mark.nightly
def test_it_installs_from_the_clone(tmp_path: Path) -> None:
    """Without what it needs: test_packaging installs the wheel with all of that."""
    venv.create(tmp_path, with_pip=True)
    python = tmp_path / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    quick = ("--no-deps", "--disable-pip-version-check")
    command: list[str | Path] = [python, "-m", *shlex.split(INSTALL), *quick]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("no package index is reachable")
    assert done.returncode == 0, done.stderr
    show = "import importlib.metadata as m; print(m.version('livekit-plugins-tiro'))"
    shown = subprocess.run([python, "-c", show], cwd=tmp_path, capture_output=True, text=True)
    assert shown.stdout.strip() == tiro.__version__


@pytest.mark.nightly
@pytest.mark.parametrize("command", MODULES)
def test_a_module(command: str) -> None:
    assert run(command)


@contextmanager
def serving(command: str) -> Iterator[dict[str, str]]:
    """Run a `serve` command until the block ends; yields the environment that it prints."""
    process = subprocess.Popen(
        here(command),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        environment: dict[str, str] = {}
        while not {"TIRO_BASE_URL", "TIRO_API_KEY"} <= environment.keys():
            line = process.stdout.readline()
            assert line, "it ended before it said where it is"
            environment |= dict(re.findall(r"(TIRO_\w+)=(\S+)", line))
        yield environment
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)
        process.stdout.close()


@pytest.mark.nightly
@pytest.mark.parametrize("command", [command for command in OURS if " serve" in command])
def test_serve_prints_what_points_doctor_at_it(command: str) -> None:
    with serving(command) as environment:
        printed = run(f"{OWN}doctor", **environment)
    assert "ok" in printed and environment["TIRO_API_KEY"] not in printed.split()


# -- what it says of options -----------------------------------------------------------------------


def parameters(method: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(method).parameters) - {"self"}


def test_it_has_every_option() -> None:
    section = README.partition("## Options")[2].partition("\n## ")[0]
    assert {name for name in parameters(tiro.STT.__init__) if f"`{name}`" not in section} == set()


async def test_it_says_who_closes_the_http_session_outside_a_job() -> None:
    (row,) = re.findall(r"\| `http_session` \|.*", README)
    assert "neither an `AgentSession` nor an adapter closes: `await stt.aclose()`" in row
    stt = tiro.STT(api_key="test")
    http = stt._http_session()
    async with AgentSession(stt=stt, turn_handling={"turn_detection": "vad"}):
        pass
    assert not http.closed
    await stt.aclose()
    assert http.closed


def test_it_promises_no_more_than_its_table_of_failures() -> None:
    first = README.partition("\n\n")[2].partition("\n\n")[0]
    assert "never" not in first
    for promise, row in [
        (
            "away for up to 20 s",
            "| in a call, for 20 s it refuses (but for a quota), cannot be reached",
        ),
        ("noticed within 15 s", "does not read | a warning in the log | nothing | 13 to 14 s"),
    ]:
        assert promise in " ".join(first.split()) and row in README


def test_it_says_that_endpointing_without_hypotheses_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (row,) = re.findall(r"\| `endpointing` \|.*", README)
    assert "with `interim_results=False` it does nothing, and a warning says so" in row
    tiro.STT(api_key="test", endpointing=0.3, interim_results=False)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_it_has_every_format_of_transcribe() -> None:
    section = README.partition("| `--format` |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in section.splitlines()[2:]]
    assert re.findall(r"`(\w+)`", " ".join(cells)) == [each.value for each in Wanted]


def test_it_says_which_options_can_not_change() -> None:
    sentence = re.search(r"What can not change is (.*?):", README, re.DOTALL)
    assert sentence is not None
    fixed = set(re.findall(r"`(\w+)`", sentence[1]))
    for method in (tiro.STT.update_options, tiro.SpeechStream.update_options):
        assert parameters(method) == parameters(tiro.STT.__init__) - fixed


# -- each snippet ----------------------------------------------------------------------------------


def run_snippet(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(source, "README.md", "exec"), names)
    return names


async def test_the_snippet_for_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", "test")
    snippet = next(block for block in blocks("python") if "AgentSession" in block)
    session = run_snippet(snippet)["session"]
    assert session.stt.provider == "Tiro"


async def test_the_snippet_for_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", "test")
    snippet = next(block for block in blocks("python") if "max_retry" in block)
    session = run_snippet(snippet)["session"]
    assert session.conn_options.stt_conn_options.max_retry == 5
    assert f"`max_retry`, {DEFAULT_API_CONNECT_OPTIONS.max_retry} unless you set it" in README


def test_it_says_what_it_needs() -> None:
    """As the package does to pip."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    python = re.search(r'requires-python = ">=([\d.]+)"', settings)
    agents = re.search(r'"livekit-agents>=([\d.]+),<([\d.]+)"', settings)
    assert python is not None and agents is not None
    needed = (
        f"Python {python[1]} or newer, and livekit-agents {agents[1]} or newer, below {agents[2]},"
    )
    assert needed in README


async def test_the_snippet_for_faults() -> None:
    snippet = next(block for block in blocks("python") if "faults" in block)
    server: TiroServer = run_snippet(snippet)["server"]
    async with server, tiro.STT(base_url=server.base_url, api_key="test") as stt:
        assert finals(await collect(stt.stream(), frames(read_wav("two.wav"))))
    first, *others = server.connections
    assert first.closed_by == "server" and first.seconds >= 2.5 and not first.ended
    assert others and all(other.ended for other in others)


def test_the_snippet_for_a_button() -> None:
    snippet = next(block for block in blocks("python") if "let_go" in block)
    defined = run_snippet(snippet)
    session = mock.create_autospec(AgentSession, instance=True)
    session.input = mock.create_autospec(AgentInput, instance=True)
    defined["press"](session)
    session.input.set_audio_enabled.assert_called_with(True)
    assert defined["let_go"](session) is session.commit_user_turn.return_value
    session.input.set_audio_enabled.assert_called_with(False)
    session.commit_user_turn.assert_called_once_with()


async def test_the_snippet_for_tests() -> None:
    snippet = next(block for block in blocks("python") if "TiroServer" in block)
    hear: Callable[..., Any] = run_snippet(snippet)["hear"]
    events = await asyncio.wait_for(hear(frames(read_wav("is.wav"))), 10)
    assert "daginn" in " ".join(finals(events)).lower()


async def test_the_snippet_for_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    snippet = next(block for block in blocks("python") if "recognize(" in block)
    async with TiroServer() as server:
        monkeypatch.setenv("TIRO_BASE_URL", server.base_url)
        monkeypatch.setenv("TIRO_API_KEY", "test")
        words = await run_snippet(snippet)["words"](str(ROOT / "tests/data/is.wav"))
    assert "daginn" in " ".join(word for word, _, _ in words).lower()
    assert all(0.0 <= start < end for _, start, end in words)
