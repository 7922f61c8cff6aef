"""The plugin's messages in the words of the command line: its options, not Python's names."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial

_OPTIONS = {
    "language": "--language",
    "base_url": "--base-url",
    "max_alternatives": "--max-alternatives",
    "diarization": "--diarize",
    "punctuate": "--no-punctuate",
    "endpointing": "--endpointing",
}
OF_TRANSCRIBE = ("max_alternatives", "diarization", "punctuate", "endpointing")
"""The settings that only `transcribe` has options for."""
# How the plugin's messages list settings: by their names as arguments.
_LIST = re.compile(r"\btiro\.STT ?\(([^)]*)\)")
# The key is never an option: everybody can see the options of a running program.
_KEY = re.compile(r"\bapi_key(?:=)?,? ?(?:or )?(?=TIRO_)")
# Names that are plain words as well: they mean an option only where a value is asked for.
_PLAIN = re.compile(r"\b(language|diarization|punctuate|endpointing)(=True)?(?= must\b| needs\b)")
# Advice that only a program can follow: the command makes its own HTTP session, and has no worker.
_GIVEN = re.compile(r",? or (?:of )?the http_session\b[^.;:]*")
_NAME = re.compile(r"\b(base_url|max_alternatives|diarization=True)\b")


def in_options(message: str, *, without: Collection[str] = ()) -> str:
    """Return a message of the plugin with the names of the command's options.

    Args:
        message: What the plugin says.
        without: Settings that are no options of the command: advice does not list them.
    """
    message = _GIVEN.sub("", message)
    message = _LIST.sub(partial(_as_options, without), message)
    message = _KEY.sub("", message)
    message = message.replace("api_key", "TIRO_API_KEY")
    message = _PLAIN.sub(lambda match: _OPTIONS[match[1]], message)
    message = _NAME.sub(lambda match: _OPTIONS[match[1].removesuffix("=True")], message)
    return re.sub(r"\btiro\.STT\b", "the command", message)


def _as_options(without: Collection[str], match: re.Match[str]) -> str:
    names = (name.strip() for name in match[1].split(","))
    named = (_OPTIONS[name] for name in names if name in _OPTIONS and name not in without)
    options = ", ".join(named)
    return f"the command ({options})" if options else "the command"
