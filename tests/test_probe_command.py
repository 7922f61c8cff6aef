"""The `probe` command as its user meets it, its sample, and what becomes of probes that fail."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from livekit.plugins.tiro.cli import app
from livekit.plugins.tiro.cli.exits import Exit, FileError
from livekit.plugins.tiro.cli.probe.lab import Lab, Probe, Unanswerable
from livekit.plugins.tiro.cli.probe.plan import measure, plan
from livekit.plugins.tiro.cli.probe.report import Report, Row, Verdict, judged, not_seen
from livekit.plugins.tiro.cli.probe.sample import (
    RATE,
    SpokenWord,
    convert,
    own_sample,
    plain,
    sample_from,
)
from livekit.plugins.tiro.options import Options
from livekit.plugins.tiro.reach import new_http_session
from livekit.plugins.tiro.testing import ConnectionRecord, Hooks, TiroServer, faults

from .support.probe_service import KEY, SAMPLE, SampleRecognizer, in_virtual_time
from .support.recordings import Sound, silence, tone, write

# The package has a function of the same name.
COMMAND = importlib.import_module("livekit.plugins.tiro.cli.probe.command")
QUESTIONS = [question for probe in plan(None) for question in probe.questions]
ROOT = Path(__file__).parent.parent

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", KEY)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run the command in virtual time, beside a server that recognises the sample."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    def run(*arguments: str, stdin: str | None = None, **server: Any) -> Result:
        settings = {"api_key": KEY, "recognizers": {"is": SampleRecognizer()}, **server}

        async def beside(main: Coroutine[Any, Any, None]) -> None:
            async with TiroServer(port=port, **settings):
                await main

        monkeypatch.setattr(asyncio, "run", lambda main: in_virtual_time(beside(main)))
        monkeypatch.setenv("TIRO_BASE_URL", f"ws://127.0.0.1:{port}/v2beta1")
        return CliRunner().invoke(app, ["probe", *arguments], input=stdin)

    return run


async def _yes(lab: Lab) -> AsyncIterator[Row]:
    lab.spend(1.0)
    yield judged("is it so?", True, "yes", so=True)
    yield not_seen("and the other?", "no [bold]sign[/bold] of it", "look [again]")


YES = Probe(("is it so?", "and the other?"), _yes, lambda sample: 1.0)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put one short probe in place of all."""
    monkeypatch.setattr(COMMAND, "plan", lambda minutes: [YES])


# -- a whole run -----------------------------------------------------------------------------------


def test_all_questions_against_a_service_that_is_as_assumed(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "probe.json"
    recognizer = SampleRecognizer(cuts="without lead-in")
    result = invoke("--yes", "--json", str(path), recognizers={"is": recognizer})
    assert result.exit_code == 0, result.output
    assert f"note: {len(QUESTIONS)} questions, up to " in result.stderr
    said = float(result.stderr.partition("up to ")[2].split()[0])
    written = path.read_text(encoding="utf-8")
    found = json.loads(written)
    assert [row["question"] for row in found["rows"]] == QUESTIONS
    assert [row for row in found["rows"] if row["verdict"] != "as assumed"] == []
    assert 60 < found["audio_seconds"] <= said
    assert found["finished"] and found["sample"] == "own"
    for question in QUESTIONS:
        assert question in result.stdout
    counts = f"{len(QUESTIONS)} as assumed; {found['connections']} connections"
    assert counts in result.stdout
    hold_secrets(result.output + written)
    words = next(row for row in found["rows"] if row["question"] == "words")
    known = {plain(word.text) for part in (SAMPLE.whole, SAMPLE.broken) for word in part.words}
    assert set(words["values"]["found"]) == known


def hold_secrets(text: str) -> None:
    for secret in (KEY, quote(KEY), "127.0.0.1", "localhost", "GÓÐAN", "Góðan daginn,"):
        assert secret not in text


def test_the_address_is_named_if_asked(invoke: Invoke, short: None, tmp_path: Path) -> None:
    path = tmp_path / "probe.json"
    assert invoke("--yes", "--with-host", "--json", str(path)).exit_code == 0
    assert json.loads(path.read_text(encoding="utf-8"))["service"].startswith("ws://127.0.0.1:")


def test_the_table(invoke: Invoke, short: None) -> None:
    result = invoke("--yes")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "is it so? as assumed yes" in lines
    assert "and the other? not seen no [bold]sign[/bold] of it" in lines
    assert "- and the other?: look [again]" in lines
    assert lines[-1] == "1 as assumed, 1 not seen; 1 connections, 1 s of audio"


def test_a_probe_that_fails_makes_the_exit_code(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(COMMAND, "plan", lambda minutes: [failing(Unanswerable("why")), YES])
    result = invoke("--yes")
    assert result.exit_code == 1
    assert "not measured" in result.stdout and "as assumed" in result.stdout


def test_given_speech(invoke: Invoke, short: None, tmp_path: Path) -> None:
    path, speech = tmp_path / "probe.json", tmp_path / "a.wav"
    write(speech, Sound(tone(2.0, RATE)))
    assert invoke("--yes", "--speech", str(speech), "--json", str(path)).exit_code == 0
    assert json.loads(path.read_text(encoding="utf-8"))["sample"] == "given"


# -- before it starts ------------------------------------------------------------------------------


def test_nobody_is_there_to_ask(invoke: Invoke, short: None) -> None:
    result = invoke()
    assert result.exit_code == Exit.USAGE
    assert "2 questions, up to 1 s of audio" in result.stderr and "--yes" in result.stderr


@pytest.mark.parametrize(("answer", "starts"), [("y\n", True), ("n\n", False)])
def test_it_asks_at_a_terminal(
    invoke: Invoke, short: None, monkeypatch: pytest.MonkeyPatch, answer: str, starts: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    terminal = SimpleNamespace(stdin=Terminal(), stdout=out, stderr=Terminal())
    monkeypatch.setattr(COMMAND, "sys", terminal)
    result = invoke(stdin=answer)
    assert result.exit_code == 0
    assert "up to 1 s of audio" in result.output and "Start?" in result.output
    assert ("is it so?" in out.getvalue()) is starts


def test_the_limits_are_said(invoke: Invoke) -> None:
    result = invoke("--limits", "5")
    assert "some 7 minutes" in result.stderr
    said = float(result.stderr.partition("up to ")[2].split()[0])
    assert said > 600
    assert invoke("--limits", "0").exit_code == invoke("--limits", "1000").exit_code == 2


def test_no_key(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIRO_API_KEY")
    result = invoke("--yes")
    assert result.exit_code == Exit.NO_KEY and "TIRO_API_KEY or TIRO_SPEECH_KEY" in result.stderr


@pytest.mark.parametrize("arguments", [("--language", "?"), ("--base-url", "http://a?token=b")])
def test_settings_that_cannot_be_right(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    result = invoke("--yes", *arguments)
    assert result.exit_code == Exit.USAGE
    assert result.stderr.startswith(f"error: {arguments[0]} must ")


def test_a_key_that_can_be_none(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_API_KEY", " ")
    result = invoke("--yes")
    assert result.exit_code == Exit.USAGE
    assert result.stderr.startswith("error: TIRO_API_KEY must not be empty")


def test_json_is_not_written_over_a_recording(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "a.WAV"
    result = invoke("--yes", "--json", str(path))
    assert result.exit_code == Exit.USAGE
    assert f"--json {path} has the name of a recording" in result.stderr
    assert str(tmp_path / "a.json") in result.stderr


def test_json_that_cannot_be_written(
    invoke: Invoke, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tmp_path, tmp_path / "nowhere" / "a.json"):
        result = invoke("--yes", "--json", str(place))
        assert result.exit_code == Exit.OUTPUT and "is it so?" not in result.output
    assert f"(make {tmp_path / 'nowhere'} first)" in result.stderr

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    result = invoke("--yes", "--json", str(tmp_path / "a.json"))
    assert result.exit_code == Exit.OUTPUT and "No space left" in result.stderr
    assert "is it so?" in result.stdout, "what was found is shown all the same"


def test_an_output_that_cannot_be_written(
    invoke: Invoke, short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Report, "print", full)
    path = tmp_path / "probe.json"
    result = invoke("--yes", "--json", str(path))
    assert result.exit_code == Exit.OUTPUT
    assert result.stderr.splitlines()[-1] == "error: cannot write: No space left on device"
    assert json.loads(path.read_text(encoding="utf-8"))["finished"] is True


# -- a service that cannot be measured -------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "text"),
    [
        ({"api_key": "another"}, "Check the key"),
        ({"hooks": faults.Refuse(503)}, "HTTP 503"),
        ({"hooks": faults.Refuse(400)}, "given to the command (--language)"),
        ({"hooks": faults.Disconnect()}, "before it said anything"),
        ({"hooks": faults.ResetHandshake()}, "could not connect"),
    ],
)
def test_a_service_that_lets_nobody_in(
    invoke: Invoke, short: None, tmp_path: Path, server: dict[str, Any], text: str
) -> None:
    path = tmp_path / "probe.json"
    result = invoke("--yes", "--json", str(path), **server)
    assert result.exit_code == 1 and not path.exists()
    assert text in result.stderr and "doctor" in result.stderr
    assert result.stdout == ""


# -- cut short -------------------------------------------------------------------------------------


def test_an_interrupt_shows_what_is_known(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def interrupted(lab: Lab, probes: Any, report: Report, show: Any) -> None:
        await measure(lab, [YES], report, show)
        report.is_finished = False
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMAND, "measure", interrupted)
    path = tmp_path / "probe.json"
    result = invoke("--yes", "--json", str(path))
    assert result.exit_code == Exit.INTERRUPTED
    assert "is it so?" in result.stdout
    assert json.loads(path.read_text(encoding="utf-8"))["finished"] is False


class Interrupts(Hooks):
    """Presses Ctrl-C when the first audio comes."""

    def __init__(self) -> None:
        self.pressed = False

    async def audio(self, connection: ConnectionRecord, pcm: bytes) -> None:
        if not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def serving(hooks: Hooks) -> Iterator[str]:
    """Run a server in a thread of its own, so that the command has the main one; yield its URL."""
    loop, server = asyncio.new_event_loop(), TiroServer(api_key=KEY, hooks=hooks)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield server.base_url
        asyncio.run_coroutine_threadsafe(server.aclose(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send there")
def test_ctrl_c_in_the_middle_of_a_call() -> None:
    hooks = Interrupts()
    # What a shell starts in the background is told to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with serving(hooks) as url:
            result = CliRunner().invoke(app, ["probe", "--yes", "--base-url", url])
    finally:
        signal.signal(signal.SIGINT, before)
    assert hooks.pressed and result.exit_code == Exit.INTERRUPTED
    lines = result.stdout.splitlines()
    assert any("wrong key" in line and "as assumed" in line for line in lines)
    assert not any("silence to a final" in line for line in lines)


# -- probes that fail ------------------------------------------------------------------------------


def failing(error: BaseException) -> Probe:
    async def run(lab: Lab) -> AsyncIterator[Row]:
        yield judged("first", True, "seen")
        raise error

    return Probe(("first", "second"), run)


async def made(*probes: Probe) -> Report:
    report = Report("is-IS", "own")
    options = Options(api_key=KEY, base_url="ws://127.0.0.1:1")
    async with new_http_session(options.url) as http:
        await measure(Lab(http, options, SAMPLE), probes, report, lambda line: None)
    return report


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (Unanswerable("for a reason"), "for a reason"),
        (ZeroDivisionError("secret"), "unexpected ZeroDivisionError"),
    ],
)
async def test_one_that_fails_does_not_stop_the_others(error: Exception, why: str) -> None:
    report = await made(failing(error), YES)
    assert [row.question for row in report.rows] == ["first", "second", *YES.questions]
    assert report.rows[1].verdict is Verdict.NOT_MEASURED and why in report.rows[1].saw
    assert "secret" not in str(report.rows)
    assert report.is_finished and not report.is_measured


def test_one_that_hangs_is_ended() -> None:
    async def hang(lab: Lab) -> AsyncIterator[Row]:
        await asyncio.sleep(1e6)
        yield judged("hangs", True, "never")

    report = in_virtual_time(made(Probe(("hangs",), hang, waits=2.0), YES))
    assert "within 2 s" in report.rows[0].saw
    assert report.rows[1].verdict is Verdict.AS_ASSUMED


async def test_none_uses_more_audio_than_was_said() -> None:
    async def greedy(lab: Lab) -> AsyncIterator[Row]:
        for _ in range(3):
            lab.spend(0.5)
        yield judged("greedy", True, "never")

    report = await made(Probe(("greedy",), greedy, lambda sample: 1.0))
    assert "more audio than was announced" in report.rows[0].saw
    assert report.seconds == 1.0


def test_a_report_says_nothing_of_the_key() -> None:
    row = Row("is it so?", Verdict.DIFFERS, f"it is {KEY}", f"use {KEY}")
    report = Report("is-IS", "own", f"wss://example.invalid/{KEY}", [row])
    out = io.StringIO()
    report.print(Console(file=out, width=80))
    assert KEY not in out.getvalue() + report.as_json()
    assert "[key]" in out.getvalue()


# -- the sample ------------------------------------------------------------------------------------


def test_the_sample_is_what_its_words_say() -> None:
    sample = own_sample()
    assert sample.whole.words
    assert 6.0 <= sample.whole.seconds + sample.broken.seconds <= 8.0
    for part in (sample.whole, sample.broken):
        ends = [0.0, *(word.end for word in part.words)]
        for word, before in zip(part.words, ends, strict=False):
            assert before - 0.011 <= word.start < word.end <= part.seconds + 0.011
            piece = part.samples[round(word.start * RATE) : round(word.end * RATE)]
            assert np.abs(piece.astype(np.int32)).max() > 1000, word
    about = json.loads((folder() / "sample.json").read_text(encoding="utf-8"))
    assert "CC0-1.0" in about["licence"] and "Apache-2.0" in about["licence"]
    for part, sentence in zip((sample.whole, sample.broken), about["sentences"], strict=True):
        assert [plain(word.text) for word in part.words] == list(
            map(plain, sentence["text"].split())
        )
    assert (folder() / "sample.flac").stat().st_size < 200_000


def folder() -> Path:
    return ROOT / "livekit/plugins/tiro/cli/probe"


@pytest.mark.parametrize("rate", [8000, 24000, 44100, 48000])
def test_the_sample_at_another_rate(rate: int) -> None:
    samples = convert(SAMPLE.whole.samples, rate)
    assert len(samples) == pytest.approx(SAMPLE.whole.seconds * rate, abs=rate / 100)
    back = convert(samples, RATE, source=rate)[: len(SAMPLE.whole.samples)]
    loud = SAMPLE.whole.samples[: len(back)].astype(np.float64)
    likeness = np.dot(loud, back) / np.linalg.norm(loud) / np.linalg.norm(back.astype(np.float64))
    assert likeness > (0.85 if rate == 8000 else 0.99)


def test_any_file_is_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[sample_from.__module__], "_SEARCHED", 10.0)
    parts = silence(1.0, 44100), tone(9.0, 44100), silence(1.0, 44100), tone(2.0, 44100)
    sound = np.repeat(np.concatenate(parts, axis=1), 2, axis=0)
    path = write(tmp_path / "a.mka", Sound(sound, "flac", 44100, "stereo"))
    sample = sample_from(path)
    assert sample.whole.words == ()
    assert sample.whole.seconds == pytest.approx(6.0, abs=0.01)
    assert sample.broken.seconds == pytest.approx(3.6, abs=0.01)
    assert np.abs(sample.whole.samples[:160].astype(np.int32)).max() > 5000, "quiet is cut off"


@pytest.mark.parametrize("seconds", [0.3, 0.9])
def test_too_little_speech(tmp_path: Path, seconds: float) -> None:
    path = write(tmp_path / "a.wav", Sound(tone(seconds, RATE)))
    with pytest.raises(FileError, match="less than a second") as raised:
        sample_from(path)
    assert raised.value.code is Exit.NO_AUDIO and "a.wav" in str(raised.value)


def test_no_speech(tmp_path: Path, invoke: Invoke) -> None:
    assert invoke("--yes", "--speech", str(tmp_path / "none.wav")).exit_code == Exit.NO_FILE
    empty = tmp_path / "a.wav"
    empty.write_bytes(b"RIFF")
    assert invoke("--yes", "--speech", str(empty)).exit_code == Exit.NO_AUDIO


def test_words_are_compared_without_case_and_marks() -> None:
    assert plain("Góðan,") == plain("go\u0301ðan") == "góðan"
    assert SpokenWord("já", 0.0, 0.1).text == "já"


# -- what is written of it -------------------------------------------------------------------------


def test_the_readme_has_every_question() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [question for question in QUESTIONS if question not in readme] == []
