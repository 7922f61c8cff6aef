"""Which transcript goes where: nothing clashes, and nothing is written over."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from livekit.plugins.tiro.cli.exits import CliError, Exit
from livekit.plugins.tiro.cli.formats import Format
from livekit.plugins.tiro.cli.plan import Group, Place, Plan, names, plan

from .fuzz_media import KINDS

TEXT, JSON, SRT = Format.TEXT, Format.JSON, Format.SRT


def written(found: Plan) -> list[str]:
    """The names of all documents."""
    places = [place.path for group in found.groups for place in group.places]
    return [path.name for path in places if path is not None]


@pytest.mark.parametrize("output", [None, "-"])
def test_text_goes_to_the_standard_output(output: str | None) -> None:
    files = ["a.wav", "b.wav"]
    assert plan(files, [], output) == Plan([Group(files, [Place(TEXT, None)])])
    assert plan(files, [JSON, JSON], output).groups[0].places == [Place(JSON, None)]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.txt", TEXT),
        ("a.JSON", JSON),
        ("a.srt", SRT),
        ("a.vtt", Format.VTT),
        ("a.tsv", Format.TSV),
        ("a.out", TEXT),
        ("a", TEXT),
    ],
)
def test_the_ending_of_the_output_chooses_the_format(
    tmp_path: Path, name: str, form: Format
) -> None:
    path = tmp_path / name
    assert plan(["a.wav"], [], str(path)).groups == [Group(["a.wav"], [Place(form, path)])]
    assert plan(["a.wav"], [JSON], str(path)).groups[0].places == [Place(JSON, path)]


@pytest.mark.parametrize(
    ("output", "forms", "remark"),
    [
        ("x.srt", [JSON], "x.srt gets json, as --format says, not srt"),
        ("x.TXT", [SRT], "x.TXT gets srt, as --format says, not TXT"),
        ("x.docx", [], "x.docx gets plain text: there is no .docx here; --format names what"),
        ("x.htm", [], "x.htm gets plain text"),
        ("x.csv", [Format.TSV], ""),
        ("x.htm", [Format.HTML], ""),
        ("x.srt", [SRT], ""),
        ("x.srt", [], ""),
        ("x.log", [], ""),
        ("x", [JSON], ""),
        ("-", [JSON], ""),
        ("x.srt/", [JSON], ""),
    ],
)
def test_a_name_that_promises_another_format_is_told_of(
    output: str, forms: list[Format], remark: str
) -> None:
    found = plan(["a.wav"], forms, output).remark
    assert found.startswith(remark) and bool(found) is bool(remark)


def test_a_directory_gets_a_document_for_each_file_and_format(tmp_path: Path) -> None:
    found = plan(["x/a.wav", "b.mp3"], [TEXT, SRT], str(tmp_path))
    assert found.directory == tmp_path
    assert found.groups == [
        Group([file], [Place(TEXT, tmp_path / f"{name}.txt"), Place(SRT, tmp_path / f"{name}.srt")])
        for file, name in (("x/a.wav", "a"), ("b.mp3", "b"))
    ]


@pytest.mark.parametrize(
    ("files", "forms", "output"),
    [
        (["a.wav"], [], "new/"),
        (["a.wav"], [TEXT, SRT], "new"),
        (["a.wav", "b.wav"], [], "new"),
        (["a.wav", "b.wav"], [SRT], "new"),
    ],
)
def test_what_has_to_be_a_directory_is_one(
    files: list[str], forms: list[Format], output: str
) -> None:
    assert plan(files, forms, output).directory == Path("new")


def test_several_files_go_into_one_document_if_it_is_named_like_one() -> None:
    assert plan(["a.wav", "b.wav"], [], "all.txt").directory is None


def test_a_device_is_no_directory() -> None:
    assert plan(["a.wav", "b.wav"], [], os.devnull).directory is None


@pytest.mark.parametrize(
    ("files", "forms", "output", "reason"),
    [
        (["a.wav", "b.wav"], [SRT], None, "srt makes one document of each FILE"),
        (["a.wav", "b.wav"], [], "all.vtt", "vtt makes one document of each FILE"),
        (["a.wav"], [TEXT, JSON], None, "several formats make several documents"),
        (["a.wav"], [TEXT, JSON], "a.txt", "--output must be a directory"),
        (["-", "a.wav", "-"], [], None, r"the standard input \(-\) can be read only once"),
    ],
)
def test_what_does_not_fit(
    files: list[str], forms: list[Format], output: str | None, reason: str
) -> None:
    with pytest.raises(CliError, match=reason) as caught:
        plan(files, forms, output)
    assert caught.value.code is Exit.USAGE


def test_a_file_is_never_overwritten_by_a_transcript(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"sound, in spite of its name")
    (tmp_path / "b.txt").symlink_to(path)
    with pytest.raises(CliError, match=r"b.txt is one of the FILEs"):
        plan(["gone", str(path)], [], str(tmp_path / "b.txt"))
    with pytest.raises(CliError, match=r"a.txt is one of the FILEs"):
        plan([str(path)], [], str(tmp_path))
    assert plan(["a\0b"], [], str(tmp_path)).groups


@pytest.mark.parametrize(
    ("output", "forms", "other"),
    [
        ("fox2.wav", [], "fox2.txt"),
        ("x/a.b.MP4", [JSON], "x/a.b.json"),
        (".x.wav", [SRT], ".x.srt"),
    ],
)
def test_no_document_gets_the_name_of_a_recording(
    output: str, forms: list[Format], other: str
) -> None:
    told = f"{output} has the name of a recording, .*: name another .* --output, such as {other}$"
    with pytest.raises(CliError, match=told) as caught:
        plan(["fox.wav"], forms, output)
    assert caught.value.code is Exit.USAGE


def test_the_name_of_every_recording_that_is_read_is_known() -> None:
    for ending in {kind.ending for kind in KINDS}:
        with pytest.raises(CliError, match="has the name of a recording"):
            plan(["fox"], [], f"a.{ending}")


def test_a_directory_may_be_named_like_a_recording(tmp_path: Path) -> None:
    folder = tmp_path / "call.wav"
    folder.mkdir()
    assert written(plan(["fox.wav"], [], str(folder))) == ["fox.txt"]
    assert written(plan(["fox.wav"], [], "new.mp3/")) == ["fox.txt"]


@pytest.mark.many
def test_thousands_of_files_are_planned_in_no_time(tmp_path: Path) -> None:
    same = [f"{number}/a.wav" for number in range(3000)]
    files = [*same, *same, *(f"{number}.wav" for number in range(3000))]
    before = time.process_time()
    found = plan(files, [TEXT, SRT], str(tmp_path))
    assert time.process_time() - before < 5
    assert len(set(written(found))) == 2 * len(files)


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.wav", "b.mp3"], ["a", "b"]),
        (["1.1 intro", "1.2 outro", "v1.2"], ["1.1 intro", "1.2 outro", "v1.2"]),
        (["1.1 intro.wav", "1.2 outro.wav"], ["1.1 intro", "1.2 outro"]),
        (["a.wav", "a.mp3", "b.3gp"], ["a.wav", "a.mp3", "b"]),
        (["x/a.wav", "y/a.wav"], ["x_a.wav", "y_a.wav"]),
        (["p/x/a.wav", "q/x/a.wav", "a.wav"], ["p_x_a.wav", "q_x_a.wav", "a.wav"]),
        (["a.wav", "a.wav", "a.wav"], ["a", "a (2)", "a (3)"]),
        (["A.wav", "a.wav"], ["A", "a (2)"]),
        (["\u00e1.wav", "a\u0301.mp3"], ["\u00e1.wav", "a\u0301.mp3"]),
        (["a.wav", "a.wav.wav", "a.mp3"], ["a", "a.wav", "a.mp3"]),
        (["-", "stdin.wav"], ["stdin", "stdin.wav"]),
        (["/"], [""]),
        ([], []),
    ],
)
def test_no_two_names_are_alike(files: list[str], expected: list[str]) -> None:
    assert names(files) == expected
