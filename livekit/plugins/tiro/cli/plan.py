"""Which transcript goes where, decided before any work is done."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .exits import CliError, Exit
from .formats import Format
from .source import STDIN

STDOUT = "-"
"""How the standard output is named on the command line."""

# Characters in an ending of media files, at most; "1.1 intro" has no ending.
_LONGEST_ENDING = 5
# Endings by which other programs open a file, and fail if there is plain text in it.
_FOREIGN = frozenset(
    ".ass .csv .dfxp .doc .docx .htm .jsonl .odt .ods .pdf .rtf .sbv .ssa .sub .ttml .xhtml .xls "
    ".xlsx .xml".split()
)
# Endings of recordings: a document is none, and may well be written over one.
_RECORDINGS = frozenset(
    ".3g2 .3gp .aac .ac3 .aif .aifc .aiff .amr .ape .asf .au .avi .awb .caf .dts .eac3 .f4v .flac "
    ".flv .gsm .m2ts .m4a .m4b .m4v .mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .mts .mxf .nut .oga "
    ".ogg .ogv .opus .pcm .ra .raw .rm .snd .spx .ts .tta .vob .voc .w64 .wav .wave .webm .wma "
    ".wmv .wv".split()
)


@dataclass(frozen=True)
class Place:
    """A document to write."""

    form: Format
    path: Path | None
    """None is the standard output."""


@dataclass(frozen=True)
class Group:
    """Files whose transcripts go to the same documents."""

    files: Sequence[str]
    places: Sequence[Place]


@dataclass(frozen=True)
class Plan:
    """All that is to be done."""

    groups: Sequence[Group]
    directory: Path | None = None
    """The output directory, to be made if it is not there."""
    remark: str = ""
    """What may not be as it was meant; empty if there is nothing to say."""


def plan(files: Sequence[str], forms: Sequence[Format], output: str | None) -> Plan:
    """Decide which transcript goes where.

    A directory gets a document for each file and format, with the file's name and the format's
    ending. The output is taken for a directory if it is one, or if it ends like one; and, if there
    is more than one document, also if it does not exist and has no ending.

    Args:
        files: Paths, or `STDIN`, as given.
        forms: Formats, as given; none leaves it to the output's ending.
        output: A path, `STDOUT`, or None for the standard output as well.

    Raises:
        CliError: Several documents would go to one place, or one would overwrite a file, or has
            the name of a recording.
    """
    if files.count(STDIN) > 1:
        raise CliError(Exit.USAGE, "the standard input (-) can be read only once")
    path = None if output in (None, STDOUT) else Path(str(output))
    formats = list(dict.fromkeys(forms)) or [_by_ending(path) or Format.TEXT]
    if path is not None and _is_directory(str(output), path, files, formats):
        groups = [
            Group([file], [Place(form, path / f"{name}{form.suffix}") for form in formats])
            for file, name in zip(files, names(files), strict=True)
        ]
        found = Plan(groups, path)
    else:
        _check_one(files, formats)
        remark = "" if path is None else _odd_ending(path, formats[0], is_asked=bool(forms))
        found = Plan([Group(files, [Place(formats[0], path)])], remark=remark)
    _check_overwriting(files, found)
    _check_endings(found)
    return found


def _by_ending(path: Path | None) -> Format | None:
    endings = {form.suffix: form for form in Format}
    return None if path is None else endings.get(path.suffix.lower())


def _odd_ending(path: Path, form: Format, *, is_asked: bool) -> str:
    """Return what there is to say of a name that promises another format; empty if nothing is."""
    if is_asked:
        promised = _by_ending(path)
        odd = promised is not None and promised is not form
        return f"{path} gets {form.value}, as --format says, not {path.suffix[1:]}" if odd else ""
    if path.suffix.lower() not in _FOREIGN:
        return ""
    return f"{path} gets plain text: there is no {path.suffix} here; --format names what there is"


def _is_directory(output: str, path: Path, files: Sequence[str], formats: Sequence[Format]) -> bool:
    if path.is_dir() or output.endswith((os.sep, os.altsep or os.sep)):
        return True
    # A device or a pipe is no directory, whatever its name.
    several = len(files) > 1 or len(formats) > 1
    return several and not path.suffix and not path.exists()


def _check_one(files: Sequence[str], formats: Sequence[Format]) -> None:
    """Raise CliError if there is more than fits into one document."""
    needed = "--output must be a directory (a name that ends in /)"
    if len(formats) > 1:
        raise CliError(Exit.USAGE, f"several formats make several documents: {needed}")
    if len(files) > 1 and not formats[0].takes_many:
        raise CliError(
            Exit.USAGE,
            f"{formats[0].value} makes one document of each FILE: with several of them, {needed}",
        )


def _check_overwriting(files: Sequence[str], found: Plan) -> None:
    """Raise CliError if a document would be written over one of the files."""
    inputs = {identity for file in files if (identity := _identity(file)) is not None}
    for group in found.groups:
        for place in group.places:
            if place.path is not None and _identity(place.path) in inputs:
                raise CliError(
                    Exit.USAGE, f"{place.path} is one of the FILEs and would be overwritten"
                )


def _check_endings(found: Plan) -> None:
    """Raise CliError if a document would have the name of a recording."""
    for place in (place for group in found.groups for place in group.places):
        path = place.path
        if path is not None and is_named_as_recording(path):
            other = path.with_suffix(place.form.suffix)
            raise CliError(
                Exit.USAGE,
                f"{path} has the name of a recording, and gets {place.form.value}: "
                f"name another file with --output, such as {other}",
            )


def is_named_as_recording(path: Path) -> bool:
    """Tell whether a file's ending is that of a recording, which is not to be written over."""
    return path.suffix.lower() in _RECORDINGS


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Return what two names of one regular file have in common; None for anything else."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if Path(path).is_file() else None


# -- names ---------------------------------------------------------------------------------------


def names(files: Sequence[str]) -> list[str]:
    """Return a name for each file's documents, without their ending, no two alike.

    A name is that of the file without its ending. Where two would be alike, it keeps the ending;
    where they still are, the directories are added. A number tells apart files given twice.
    """
    candidates = [list(_candidates(file)) for file in files]
    found = [""] * len(files)
    taken: set[str] = set()
    left = list(range(len(files)))
    for level in range(max(map(len, candidates), default=0)):
        tried = {index: candidates[index][min(level, len(candidates[index]) - 1)] for index in left}
        counts = Counter(map(_key, tried.values()))
        for index in left:
            if counts[_key(tried[index])] == 1 and _key(tried[index]) not in taken:
                found[index] = tried[index]
        taken.update(_key(found[index]) for index in left if found[index])
        left = [index for index in left if not found[index]]
    numbers: Counter[str] = Counter()
    for index in left:
        found[index] = _numbered(candidates[index][0], taken, numbers)
        taken.add(_key(found[index]))
    return found


def _candidates(file: str) -> Iterable[str]:
    """Yield names for a file's documents, from the shortest to the one that says most."""
    if file == STDIN:
        yield "stdin"
        return
    path = Path(file)
    yield _stem(path)
    name = path.name
    yield name
    for parent in path.parents:
        if parent.name:
            name = f"{parent.name}_{name}"
            yield name


def _stem(path: Path) -> str:
    ending = path.suffix[1:]
    known = ending.isalnum() and not ending.isdigit() and len(ending) <= _LONGEST_ENDING
    return path.stem if known else path.name


def _numbered(name: str, taken: set[str], numbers: Counter[str]) -> str:
    """Return a name that is not taken; `numbers` has the last number given to each."""
    numbered = name
    while _key(numbered) in taken:
        numbers[name] += 1
        numbered = f"{name} ({numbers[name] + 1})"
    return numbered


def _key(name: str) -> str:
    """Return a form that is equal for names that some file systems take for the same."""
    return unicodedata.normalize("NFC", name).casefold()
