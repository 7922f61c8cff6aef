"""The README is true: its commands run, its snippets run."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .harness import finals, frames, read_wav

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]


def here(command: str) -> list[str]:
    """Return a command of the README as it runs in the present environment."""
    bare = re.sub(r"^pip install uv && uv run (--extra \w+ )*", "", command)
    program, *arguments = shlex.split(bare)
    module = {"python": [], "pytest": ["-m", "pytest"]}[program]
    return [sys.executable, *module, *arguments]


def test_the_two_commands_come_first() -> None:
    assert "transcribe --local --language en-US tests/data/fox.wav" in COMMANDS[0]
    assert COMMANDS[1] == "pip install uv && uv run --extra dev pytest --cov"
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert COMMANDS[1] in ci, "what users run is what is checked"


def test_the_main_job() -> None:
    pytest.importorskip("pocketsphinx")
    done = subprocess.run(
        here(COMMANDS[0]), cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "the quick brown fox jumps over the lazy dog"


def test_the_test_command_collects_this_suite() -> None:
    done = subprocess.run(
        [*here(COMMANDS[1]), "--collect-only", "-q", "--no-cov", "tests/test_readme.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "test_the_main_job" in done.stdout, done.stdout + done.stderr


def test_serve_prints_what_points_an_agent_at_it() -> None:
    command = next(command for command in COMMANDS if command.endswith("serve"))
    process = subprocess.Popen(
        [*here(command), "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        printed = ""
        while not ("TIRO_BASE_URL=" in printed and "TIRO_API_KEY=" in printed):
            line = process.stdout.readline()
            assert line, "it ended before it said where it is"
            printed += line
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)
        process.stdout.close()


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
