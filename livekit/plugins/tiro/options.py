"""What a user can set: one frozen, validated object, so that a bad value fails at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

DEFAULT_BASE_URL = "wss://speech.talgreinir.is/v2beta1"
"""Where Tiro's service listens, as its documentation gives it."""

KEY_VARIABLES = ("TIRO_API_KEY", "TIRO_SPEECH_KEY")
"""Where a key is looked for in the environment, first to last."""

# Hz; the range that Tiro's API definition allows for `sampleRateHertz`.
MIN_SAMPLE_RATE = 8000
MAX_SAMPLE_RATE = 48000

# s; less is a pause between words, more is longer than the service itself waits.
MIN_ENDPOINTING = 0.1
MAX_ENDPOINTING = 2.0

# Tiro's API definition: `maxAlternatives` is 0 to 30, and 0 means 1.
MAX_ALTERNATIVES = 30

_METHOD = "/speech:streamingrecognize"
_ICELANDIC = frozenset({"is", "isl", "ice", "icelandic", "íslenska"})
# A private part may be longer than BCP-47 allows: Tiro's own code names `is-x-radiology-ct`.
_TAG = re.compile(r"(?i)[a-z]{2,8}(-(?!x(-|$))[a-z0-9]{1,8})*(-x(-[a-z0-9]{1,16})+)?")
# Fields of `RecognitionConfig` that must agree with the audio this package sends.
_RESERVED_FIELDS = frozenset({"encoding", "sampleRateHertz", "sample_rate_hertz"})


def wire_language(language: str) -> str:
    """Return the language tag that goes to the service.

    Names and short forms of Icelandic become `is-IS`; other tags get the usual case (`en_us` is
    `en-US`). A tag with a private part (`is-IS-x-exp`) is returned exactly as given, because the
    service matches it letter by letter.

    Raises:
        ValueError: If it is not a language tag.
    """
    tag = language.strip() if isinstance(language, str) else ""
    if tag.lower() in _ICELANDIC:
        return "is-IS"
    hyphened = tag.replace("_", "-")
    if not _TAG.fullmatch(hyphened):
        raise ValueError(f"language must be a BCP-47 tag such as 'is-IS', not {language!r}")
    if "-x-" in hyphened.lower():
        return tag
    first, *rest = hyphened.split("-")
    parts = [part.title() if len(part) == 4 else part.upper() for part in rest]
    return "-".join([first.lower(), *parts])


class Key(str):
    """A key that does not show in a `repr`, and so in no traceback with locals."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class Options:
    """The settings of one stream. `dataclasses.replace` makes a changed, validated copy.

    Raises:
        ValueError: If a value is out of range; the message says what is allowed.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    language: str = "is-IS"
    """The tag as sent; see `wire_language`."""
    interim_results: bool = True
    punctuate: bool = True
    max_alternatives: int = 1
    sample_rate: int | None = None
    """Hz on the wire; None sends the caller's own rate."""
    diarization: bool = False
    min_speakers: int | None = None
    max_speakers: int | None = None
    extra_config: Mapping[str, Any] = field(default_factory=dict)
    endpointing: float | None = None
    """Seconds of quiet behind an open hypothesis, after which its final is asked for."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "language", wire_language(self.language))
        object.__setattr__(self, "base_url", _websocket_url(self.base_url))
        object.__setattr__(self, "extra_config", _plain_json(self.extra_config))
        object.__setattr__(self, "api_key", _checked_key(self.api_key))
        for name in ("interim_results", "punctuate", "diarization"):
            _check_flag(name, getattr(self, name))
        _check_whole("max_alternatives", self.max_alternatives, 1, MAX_ALTERNATIVES)
        if self.sample_rate is not None:
            _check_whole("sample_rate", self.sample_rate, MIN_SAMPLE_RATE, MAX_SAMPLE_RATE)
        self._check_speakers()
        _check_endpointing(self.endpointing)

    def _check_speakers(self) -> None:
        for name in ("min_speakers", "max_speakers"):
            count = getattr(self, name)
            if count is None:
                continue
            _check_whole(name, count, 1, None)
            if not self.diarization:
                raise ValueError(f"{name} needs diarization=True")
        if self.min_speakers and self.max_speakers and self.min_speakers > self.max_speakers:
            raise ValueError(
                f"min_speakers ({self.min_speakers}) must not exceed "
                f"max_speakers ({self.max_speakers})"
            )

    @property
    def url(self) -> str:
        """The address of the streaming method, without the key."""
        base = self.base_url.rstrip("/")
        return base if base.endswith(_METHOD) else base + _METHOD

    @property
    def host(self) -> str:
        """Host and port of the service, fit for messages."""
        return urlsplit(self.base_url).netloc


def _checked_key(key: str) -> Key:
    """Return a key without the blanks around it."""
    # The value is not repeated, and in no local: it is a key all the same.
    if not isinstance(key, str) or not key.strip() or not key.strip().isprintable():
        raise ValueError("api_key must not be empty, and must hold printable characters only")
    return Key(key.strip())


def _check_flag(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is True or False: "false" would be sent as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")


def _check_whole(name: str, value: Any, low: int, high: int | None) -> None:
    """Raise ValueError unless `value` is a whole number of `low` to `high`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        allowed = f"{low} or more" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number, {allowed}, not {value!r}")


def _check_endpointing(seconds: Any) -> None:
    """Raise ValueError unless it is None or a number of seconds that makes sense."""
    if seconds is None:
        return
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not MIN_ENDPOINTING <= seconds <= MAX_ENDPOINTING:
        raise ValueError(
            f"endpointing must be a number of seconds, from {MIN_ENDPOINTING:g} to "
            f"{MAX_ENDPOINTING:g}, or None, not {seconds!r}"
        )


def _websocket_url(url: str) -> str:
    """Check an address and give it the websocket scheme; http(s) means ws(s)."""
    parts = _split(url)
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts is None or parts.scheme.lower() not in schemes:
        # The address is not repeated: people paste URLs with a token in them.
        raise ValueError(
            f"base_url must be a ws(s):// or http(s):// URL such as {DEFAULT_BASE_URL}"
        )
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(
            "base_url must hold no query, fragment or user name; pass the key as api_key"
        )
    return parts._replace(scheme=schemes[parts.scheme.lower()]).geturl()


def _split(url: str) -> SplitResult | None:
    """Return the parts of an address, or None if it names no host or a port that cannot be."""
    try:
        parts = urlsplit(str(url).strip())
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _plain_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of `config`, which later changes by the caller cannot reach."""
    try:
        text = json.dumps({**config}, allow_nan=False, ensure_ascii=False)
        copied = json.loads(text.encode())
    except (TypeError, ValueError, RecursionError):
        raise ValueError("extra_config must be a mapping that JSON can hold") from None
    reserved = _RESERVED_FIELDS & copied.keys()
    if reserved:
        raise ValueError(f"extra_config must not set {', '.join(sorted(reserved))}")
    assert isinstance(copied, dict)
    return copied


def changed_options(options: Options, changes: Mapping[str, Any]) -> Options:
    """Return a validated copy of `options` with other values.

    Raises:
        ValueError: A value is not valid.
    """
    return replace(options, **changes)
