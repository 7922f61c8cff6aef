"""Scripts as text: sentences to say to any voice, or utterances with their times."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from .recognizer import script_words
from .timed import At

if TYPE_CHECKING:
    from os import PathLike

# What is meant to be a time, good or bad. "17." is not: it is how Icelandic writes "17th".
_LIKE_A_TIME = re.compile(r"[-+]?[.,]?\d(?:[\d.,:]*\d)?s?(?=\s|$)")
_UTTERANCE = re.compile(r"(?P<seconds>\d+(?:\.\d+)?)\s+(?:(?P<speaker>[1-9]\d*):\s+)?(?P<text>.+)")
_COMMENT = re.compile(r"(?:^|\s)#.*")


def read_script(path: str | PathLike[str]) -> list[str] | list[At]:
    """Read the script in a file, UTF-8; see `parse_script`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not UTF-8, or not a script; the message starts with the path.
    """
    try:
        return parse_script(Path(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text; save it as such") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_script(text: str) -> list[str] | list[At]:
    """Read a script, for the argument `script` of `TiroServer`.

    If its first line starts with a time, all lines do. Each is an utterance: the second of the
    call at which it starts, who says it, with a colon, if that matters, and what is said:

    ```text
    # at 4 s somebody else answers
    1.2 Góðan daginn.
    4.0 2: Já, takk.
    ```

    If not, each line is a sentence, said while there is a voice. Empty lines are skipped, and what
    follows a `#`.

    Raises:
        ValueError: A line is no utterance (its number is in the message), or there is none.
    """
    lines = ((n, _COMMENT.sub("", line).strip()) for n, line in enumerate(text.splitlines(), 1))
    numbered = [(number, line) for number, line in lines if line]
    sentences = [line for _, line in numbered]
    if not script_words(sentences):
        raise ValueError("there is no sentence in it")
    if not _LIKE_A_TIME.match(sentences[0]):
        return sentences
    return [_utterance(number, line) for number, line in numbered]


def _utterance(number: int, line: str) -> At:
    match = _UTTERANCE.fullmatch(line)
    if match is None:
        raise ValueError(
            f"line {number}: {line!r} is not a time in seconds and words, like '1.2 Góðan daginn.'"
        )
    try:
        return At(float(match["seconds"]), match["text"], int(match["speaker"] or 0))
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
