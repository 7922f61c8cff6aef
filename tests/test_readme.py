"""The README is true: its commands run, its snippets run."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from livekit.plugins import tiro

from .support.harness import finals, frames, read_wav

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
INSTALL = "pip install ."
DOCTOR = "python -m livekit.plugins.tiro doctor"
SERVE = [command for command in COMMANDS if " serve" in command]
OTHERS = [command for command in COMMANDS[2:] if command not in (*SERVE, DOCTOR, INSTALL)]


# What makes a command short enough for a test: the last one of two equal options counts.
SHORT = {
    "tests.campaign": ["--streams", "2"],
    "tests.soak": ["--streams", "2", "--minutes", "0.02"],
    "benchmarks": ["--again"],
    "benchmarks.flush_latency": ["--calls", "1", "--endpointer", "0.5"],
    "serve": ["--port", "0"],
    # Two minutes; tests/test_probe_command.py makes all of it, in virtual time.
    "probe": ["--help"],
}


def here(command: str) -> list[str]:
    """Return a command of the README as it runs in the present environment, made short."""
    bare = re.sub(r"^(pip install uv && )?uv run (--extra \w+ )*", "", command)
    program, *arguments = shlex.split(bare)
    module = {"python": [], "pytest": ["-m", "pytest"]}[program]
    short = [more for name, more in SHORT.items() if name in arguments]
    return [sys.executable, *module, *arguments, *sum(short, [])]


def run(command: str, **environment: str) -> str:
    """Run a command of the README, and return what it prints."""
    done = subprocess.run(
        here(command),
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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


def test_the_two_commands_come_first() -> None:
    assert "transcribe --local --language en-US tests/data/fox.wav" in COMMANDS[0]
    assert COMMANDS[1] == "pip install uv && uv run --extra dev pytest --cov"
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert COMMANDS[1] in ci, "what users run is what is checked"


def test_every_command_is_run_here() -> None:
    tested = {COMMANDS[0], COMMANDS[1], *SERVE, *OTHERS, DOCTOR, INSTALL}
    assert set(COMMANDS) == tested


def test_the_main_job() -> None:
    pytest.importorskip("pocketsphinx")
    assert run(COMMANDS[0]).strip() == "the quick brown fox jumps over the lazy dog"


def test_it_installs_from_the_clone(tmp_path: Path) -> None:
    """Without what it needs: test_packaging installs the wheel with all of that."""
    venv.create(tmp_path, with_pip=True)
    python = tmp_path / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    quick = ("--no-deps", "--disable-pip-version-check")
    command: list[str | Path] = [python, "-m", *shlex.split(INSTALL), *quick]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("no package index is reachable")
    assert done.returncode == 0, done.stderr
    show = "import importlib.metadata as m; print(m.version('livekit-plugins-tiro'))"
    shown = subprocess.run([python, "-c", show], cwd=tmp_path, capture_output=True, text=True)
    assert shown.stdout.strip() == tiro.__version__


@pytest.mark.parametrize("command", OTHERS)
def test_a_command(command: str) -> None:
    assert run(command)


@pytest.mark.parametrize("command", SERVE)
def test_serve_prints_what_points_doctor_at_it(command: str) -> None:
    with serving(command) as environment:
        printed = run(DOCTOR, **environment)
    assert "ok" in printed and environment["TIRO_API_KEY"] not in printed.split()


def test_the_test_command_collects_this_suite() -> None:
    done = subprocess.run(
        [*here(COMMANDS[1]), "--collect-only", "-q", "--no-cov", "tests/test_readme.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "test_the_main_job" in done.stdout, done.stdout + done.stderr


def run_snippet(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(source, "README.md", "exec"), names)
    return names


async def test_the_snippet_for_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", "test")
    snippet = next(block for block in blocks("python") if "AgentSession" in block)
    session = run_snippet(snippet)["session"]
    assert session.stt.provider == "Tiro"


async def test_the_snippet_for_tests() -> None:
    snippet = next(block for block in blocks("python") if "TiroServer" in block)
    hear: Callable[..., Any] = run_snippet(snippet)["hear"]
    events = await asyncio.wait_for(hear(frames(read_wav("is.wav"))), 10)
    assert "daginn" in " ".join(finals(events)).lower()
