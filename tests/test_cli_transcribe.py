"""What `transcribe` accepts, and what its options become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from livekit.plugins.tiro.cli import job as job_module
from livekit.plugins.tiro.cli.audio import Selection
from livekit.plugins.tiro.cli.exits import Exit
from livekit.plugins.tiro.cli.formats import Format
from livekit.plugins.tiro.cli.job import Job, Task
from livekit.plugins.tiro.cli.output import Style
from livekit.plugins.tiro.cli.service import Service
from livekit.plugins.tiro.cli.subtitles import Layout
from livekit.plugins.tiro.options import MAX_ALTERNATIVES, MAX_ENDPOINTING, MIN_ENDPOINTING

from .support.command import FOX, TWO, assert_failed, run, transcribe

if TYPE_CHECKING:
    from livekit.plugins.tiro.cli.plan import Plan


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Task, Plan]]:
    """What each run is asked for, in place of the run."""
    found: list[tuple[Task, Plan]] = []

    async def note(self: Job, plan: Plan) -> None:
        found.append((self._task, plan))

    monkeypatch.setattr(job_module.Job, "run", note)
    return found


@pytest.mark.parametrize("url", ["", " "])
@pytest.mark.parametrize("command", [("transcribe", FOX), ("doctor",), ("probe",)])
def test_an_empty_address_is_not_taken_for_none(command: tuple[str, ...], url: str) -> None:
    """As of `--base-url "$URL"` in a script, where there is no such variable."""
    result = run(*command, "--base-url", url)
    assert result.exit_code == Exit.USAGE
    error = " ".join(result.stderr.replace("\u2502", " ").split())
    assert "'--base-url': it is empty. Give an address, or leave the option out" in error


def test_the_help_says_when_to_begin_with_skip_existing() -> None:
    shown = " ".join(run("transcribe", "--help").stdout.replace("\u2502", " ").split())
    assert "Give it in the first run too: then an unfinished document ends in .partial." in shown
    assert "Without it, an unfinished one has its full name, and would be left out" in shown


def test_by_default_it_is_icelandic_and_text(asked: list[tuple[Task, Plan]]) -> None:
    assert transcribe(FOX).exit_code == 0
    ((task, plan),) = asked
    assert task == Task(Service("is-IS"))
    assert plan.groups[0].places[0].form is Format.TEXT


def test_every_option_has_its_place(asked: list[tuple[Task, Plan]]) -> None:
    options = (
        "-l en-US --base-url ws://x --realtime --start 1:02:03.5 --end 2:00:00 --track 2 "
        "--channel 3 --raw 8000 --skip-existing --timestamps --max-line-width 30 "
        "--max-line-count 3 --word-cues --max-alternatives 4 --diarize --no-punctuate "
        "--endpointing 0.3 -f text -f vtt -o out/"
    )
    assert transcribe(FOX, *options.split()).exit_code == 0
    ((task, plan),) = asked
    settings = {
        "max_alternatives": 4,
        "diarization": True,
        "punctuate": False,
        "endpointing": 0.3,
    }
    assert task == Task(
        Service("en-US", "ws://x", False, settings),
        Selection(2, 3, 3723.5, 7200.0, 8000),
        Style(True, Layout(30, 3, True)),
        True,
        True,
    )
    assert plan.directory == Path("out")
    assert [place.form for place in plan.groups[0].places] == [Format.TEXT, Format.VTT]


def test_all_formats_are_all_there_are(asked: list[tuple[Task, Plan]]) -> None:
    assert transcribe(FOX, "-f", "all", "-o", "out/").exit_code == 0
    ((_, plan),) = asked
    assert [place.form for place in plan.groups[0].places] == list(Format)


def test_an_ending_that_promises_another_format_is_told_of(
    asked: list[tuple[Task, Plan]], tmp_path: Path
) -> None:
    result = transcribe(FOX, "-f", "json", "-o", str(tmp_path / "a.srt"))
    assert (result.exit_code, len(asked)) == (0, 1)
    assert result.stderr == f"note: {tmp_path}/a.srt gets json, as --format says, not srt\n"
    assert transcribe(FOX, "-o", str(tmp_path / "a.log")).stderr == ""


def test_a_local_server_is_asked_for(asked: list[tuple[Task, Plan]]) -> None:
    assert transcribe(FOX, "--local").exit_code == 0
    assert asked[0][0].service.local


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 90.0),
        ("0.5", 0.5),
        ("1:30", 90.0),
        (" 1:00:00 ", 3600.0),
        ("75:59.9", 4559.9),
        ("100:59:59", 363599.0),
    ],
)
def test_times_as_people_write_them(
    asked: list[tuple[Task, Plan]], time: str, seconds: float
) -> None:
    assert transcribe(FOX, "--start", time).exit_code == 0
    assert asked[0][0].selection.start == seconds


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--local --base-url ws://x", "--local and --base-url exclude each other"),
        ("--start now", "--start must be a time like 90, 1:30 or 1:02:03.5, not 'now'"),
        ("--end -1", "--end must be a time like 90, 1:30 or 1:02:03.5, not '-1'"),
        ("--end 1:2:3:4", "--end must be a time like 90, 1:30 or 1:02:03.5, not '1:2:3:4'"),
        ("--start 1:75", "not '1:75': what comes after a colon must be below 60"),
        ("--start 1:60", "not '1:60': what comes after a colon must be below 60"),
        ("--end 1:60:00", "not '1:60:00': what comes after a colon must be below 60"),
        ("--end 1:00:60.5", "not '1:00:60.5': what comes after a colon must be below 60"),
        ("--start 2 --end 2", "--end must be later than --start"),
        ("--skip-existing", "--skip-existing needs --output"),
        ("--skip-existing -o -", "--skip-existing needs --output"),
        ("--timestamps -f srt", "--timestamps is for --format text"),
        ("--max-line-width 30", "--max-line-width is for --format srt or vtt"),
        ("--max-line-count 1 -f json", "--max-line-count is for --format srt or vtt"),
        ("--word-cues -f tsv", "--word-cues is for --format srt or vtt"),
        ("-f srt -f vtt", "several formats make several documents"),
        ("-o fox2.wav", "fox2.wav has the name of a recording, and gets text: name another file"),
        (f"{TWO} -f srt", "srt makes one document of each FILE"),
    ],
)
def test_what_makes_no_sense_is_told(options: str, reason: str) -> None:
    assert_failed(transcribe(FOX, *options.split()), Exit.USAGE, reason)


@pytest.mark.parametrize(
    "options",
    [
        "--track 0",
        "--channel 0",
        "--raw 12",
        "--max-line-width 0",
        "--max-line-count 0",
        "--max-alternatives 31",
        "--endpointing 0.01",
        "--format doc",
    ],
)
def test_what_is_out_of_range_is_told(options: str) -> None:
    result = transcribe(FOX, *options.split())
    assert result.exit_code == Exit.USAGE
    assert options.split()[0] in result.stderr


@pytest.mark.parametrize(
    ("option", "taken", "refused"),
    [
        ("--max-alternatives", MAX_ALTERNATIVES, MAX_ALTERNATIVES + 1),
        ("--endpointing", MIN_ENDPOINTING, MIN_ENDPOINTING / 2),
        ("--endpointing", MAX_ENDPOINTING, MAX_ENDPOINTING * 2),
    ],
)
def test_the_limits_of_options_are_those_of_the_plugin(
    asked: list[tuple[Task, Plan]], option: str, taken: float, refused: float
) -> None:
    assert transcribe(FOX, option, str(taken)).exit_code == 0
    assert transcribe(FOX, option, str(refused)).exit_code == Exit.USAGE
    assert len(asked) == 1


def test_a_failure_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Job, plan: Plan) -> None:
        self.failure = Exit.NO_AUDIO

    monkeypatch.setattr(job_module.Job, "run", fail)
    assert transcribe(FOX).exit_code == Exit.NO_AUDIO


def test_a_signal_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def signalled(main: Any) -> int:
        return 143

    monkeypatch.setattr("livekit.plugins.tiro.cli.signals.run", signalled)
    assert transcribe(FOX).exit_code == Exit.TERMINATED


def test_the_help_tells_of_every_option() -> None:
    shown = run("transcribe", "--help").stdout
    for option in ("--track", "--channel", "--raw", "--start", "--skip-existing", "--word-cues"):
        assert option in shown
