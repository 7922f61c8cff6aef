"""What a user can set: one frozen, validated object, so that a bad value fails at once."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

ApiKey = str | Callable[[], str | Awaitable[str]]
"""A key, or a function that returns one: plain or async, asked for each connection."""

DEFAULT_BASE_URL = "wss://speech.talgreinir.is/v2beta1"
"""Where Tiro's service listens, as its documentation gives it."""

TIRO_PATH = urlsplit(DEFAULT_BASE_URL).path
"""The path of that address, without the method's."""

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
# No language is registered with more than 3 letters: `english` is a name. A private part may be
# longer than BCP-47 allows: Tiro's own code names `is-x-radiology-ct`.
_TAG = re.compile(r"(?ai)[a-z]{2,3}(-(?!x(-|$))[a-z0-9]{1,8})*(-x(-[a-z0-9]{1,16})+)?")
# Fields of `RecognitionConfig` that must agree with the audio this package sends.
_RESERVED_FIELDS = {
    "encoding": "audio is sent as 16-bit linear PCM",
    "sample_rate_hertz": "give sample_rate",
    "language_code": "give language",
    "audio_channel_count": "audio is sent with one channel",
}
# The field of `RecognitionConfig` that holds the key terms.
_TERM_FIELD = "speech_contexts"
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Headers that make the handshake what it is.
_RESERVED_HEADERS = re.compile(
    r"(?i)connection|upgrade|content-length|transfer-encoding"
    r"|sec-websocket-(key|version|extensions|accept)"
)


def wire_language(language: str) -> str:
    """Return the language tag that goes to the service.

    Names and short forms of Icelandic become `is-IS`; other tags get the usual case (`en_us` is
    `en-US`). A tag with a private part (`is-IS-x-exp`) is returned exactly as given, because the
    service matches it letter by letter.

    Raises:
        ValueError: It is not a language tag, as the names of other languages are not: `english`.
    """
    tag = language.strip() if isinstance(language, str) else ""
    if tag.lower() in _ICELANDIC:
        return "is-IS"
    hyphened = tag.replace("_", "-")
    if not _TAG.fullmatch(hyphened):
        raise ValueError(
            f"language must be a BCP-47 tag such as 'is-IS' or 'en-US', not {language!r}"
        )
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


class KeySource:
    """A function that returns keys; a `repr` of it could show what it was made with.

    Two are equal if their functions are.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], str | Awaitable[str]]) -> None:
        """Hide a function; `of` does not hide it twice."""
        self._function = function

    @classmethod
    def of(cls, function: Callable[[], str | Awaitable[str]]) -> KeySource:
        """Return the source for a function, which may be one already."""
        return function if isinstance(function, cls) else cls(function)

    def __call__(self) -> str | Awaitable[str]:
        """Ask for a key."""
        return self._function()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeySource) and other._function == self._function

    def __hash__(self) -> int:
        return hash(self._function)

    def __repr__(self) -> str:
        return "'***'"


class WrongType:
    """Stands in for a value that should be text and is not; its repr shows the type alone."""

    __slots__ = ("kind",)

    def __init__(self, value: object) -> None:
        """Note what a value is."""
        self.kind = "None" if value is None else type(value).__name__

    def __repr__(self) -> str:
        return f"<{self.kind}>"


def _hidden(value: Any) -> Key | WrongType:
    """Return a value that does not show in a `repr`; `Options` refuses what is not a `str`."""
    if isinstance(value, WrongType):
        return value
    return Key(value) if isinstance(value, str) else WrongType(value)


def hidden_key(api_key: Any) -> Any:
    """Return a key so that a traceback with locals does not show it; what is no key stays."""
    if callable(api_key):
        return KeySource.of(api_key)
    return _hidden(api_key) if api_key or isinstance(api_key, str) else api_key


def hidden_headers(headers: Any) -> Any:
    """Return headers whose values do not show; what is no mapping stays what it is."""
    if not isinstance(headers, Mapping):
        return headers
    return {name: _hidden(value) for name, value in headers.items()}


@dataclass(frozen=True)
class Options:
    """The settings of one stream. `dataclasses.replace` makes a changed, validated copy.

    Raises:
        ValueError: If a value is out of range; the message says what is allowed.
    """

    api_key: ApiKey = field(repr=False)
    """The key, or a function that is asked for one for each connection."""
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
    """Seconds of quiet until the final of an open hypothesis is asked for."""
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with the handshake; the values do not show in a `repr`."""
    keyterms: tuple[str, ...] | None = field(default=None, repr=False)
    """The caller's words and phrases to listen for; None leaves out the framework's too."""
    session_keyterms: tuple[str, ...] = field(default=(), repr=False)
    """The framework's words and phrases to listen for."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "language", wire_language(self.language))
        object.__setattr__(self, "base_url", websocket_url(self.base_url))
        object.__setattr__(self, "extra_config", _plain_json(self.extra_config))
        object.__setattr__(self, "api_key", _key_or_source(self.api_key))
        object.__setattr__(self, "extra_headers", _checked_headers(self.extra_headers))
        object.__setattr__(self, "keyterms", _checked_terms(self.keyterms))
        if self.keyterms is not None and _TERM_FIELD in map(field_name, self.extra_config):
            raise ValueError("give either keyterms or the speechContexts of extra_config, not both")
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
                raise ValueError(f"{name} needs diarization=True; without that, give {name}=None")
        if self.min_speakers and self.max_speakers and self.min_speakers > self.max_speakers:
            raise ValueError(
                f"min_speakers ({self.min_speakers}) must not exceed "
                f"max_speakers ({self.max_speakers})"
            )

    @property
    def key(self) -> Key:
        """The key, where it was given itself or has been asked for."""
        assert isinstance(self.api_key, Key)
        return self.api_key

    @property
    def phrases(self) -> list[str]:
        """The words and phrases to listen for, each once: the caller's, then the framework's."""
        if self.keyterms is None:
            return []
        return list(dict.fromkeys([*self.keyterms, *self.session_keyterms]))

    def needs_same_config(self, other: Options) -> bool:
        """Tell whether the service would be asked for the same with other options.

        Apart from the words and phrases to listen for: those are worth no break in an utterance.
        """
        return other == replace(
            self,
            api_key=other.api_key,
            extra_headers=other.extra_headers,
            endpointing=other.endpointing,
            keyterms=other.keyterms,
            session_keyterms=other.session_keyterms,
        )

    @property
    def url(self) -> str:
        """The address of the streaming method, without the key."""
        base = self.base_url.rstrip("/")
        return base if base.endswith(_METHOD) else base + _METHOD

    @property
    def odd_path(self) -> str:
        """The path of the address, if it differs from that of Tiro's own; else empty."""
        path = urlsplit(self.url).path.removesuffix(_METHOD)
        return "" if path == TIRO_PATH else path or "/"

    @property
    def host(self) -> str:
        """Host and port of the service, fit for messages."""
        return urlsplit(self.base_url).netloc


def _key_or_source(key: ApiKey) -> Key | KeySource:
    """Return a key without the blanks around it, or the function that returns one."""
    return KeySource.of(key) if callable(key) else checked_key(key)


def checked_key(key: Any) -> Key:
    """Return a key without the blanks around it.

    Raises:
        ValueError: It cannot be a key. The message does not repeat it.
    """
    # A value of another type may hold a key all the same: only its type is named.
    if not isinstance(key, str):
        what = key if isinstance(key, WrongType) else WrongType(key)
        raise ValueError(
            f"api_key must be a str, or a function that returns one, not {what.kind}: "
            "give the key as text"
        )
    if not key.strip():
        raise ValueError("api_key must not be empty: give Tiro's key, or leave api_key out")
    if not key.strip().isprintable():
        raise ValueError(
            "api_key must be one line without control characters: copy the key again, without what "
            "comes before or after it"
        )
    hidden = Key(key.strip())
    if len(hidden) > 1 and hidden[0] == hidden[-1] and hidden[0] in "\"'":
        raise ValueError(
            "api_key must not be in quotation marks: leave them out (not every program that reads "
            "an .env file does)"
        )
    return hidden


def _checked_headers(headers: Any) -> dict[str, Key]:
    """Return a copy of headers whose values do not show."""
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ValueError("extra_headers must be a mapping of names to values, or None")
    headers = hidden_headers(headers)
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            # It may be a whole line, value included: "Name: value".
            raise ValueError("extra_headers must have names such as 'X-Tenant', without a colon")
        if _RESERVED_HEADERS.fullmatch(name):
            raise ValueError(f"extra_headers must not set {name}")
        if isinstance(value, WrongType):
            raise ValueError(
                f"extra_headers must have a str for each name, not {value.kind}: "
                f"give that of {name} as text, or leave it out"
            )
        if not value.isprintable():
            raise ValueError(
                "extra_headers must have values of one line, without control characters: "
                f"see that of {name}"
            )
    return {name: Key(value.strip()) for name, value in headers.items()}


def _checked_terms(terms: Any) -> tuple[str, ...] | None:
    """Return words and phrases, each once and without the blanks around it."""
    if terms is None:
        return None
    if isinstance(terms, (str, bytes, Mapping)) or not isinstance(terms, Iterable):
        raise ValueError("keyterms must be a list of words and phrases, or None")
    terms = tuple(terms)
    if not all(usable_terms([term]) for term in terms):
        raise ValueError("keyterms must be texts that are not empty, without control characters")
    return usable_terms(terms)


def usable_terms(terms: Iterable[Any]) -> tuple[str, ...]:
    """Return those words and phrases that can be sent, each once."""
    texts = [unicodedata.normalize("NFC", term) for term in terms if isinstance(term, str)]
    phrases = [" ".join(text.split()) for text in texts]
    return tuple(dict.fromkeys(phrase for phrase in phrases if phrase and phrase.isprintable()))


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


def websocket_url(url: str) -> str:
    """Return an address with the websocket scheme; http(s) means ws(s).

    Raises:
        ValueError: It is no address, or holds what can be a secret; it is not repeated.
    """
    if isinstance(url, str) and not url.strip():
        raise ValueError(
            f"base_url must not be empty: give an address such as {DEFAULT_BASE_URL}, or leave "
            "base_url out"
        )
    if isinstance(url, str) and url.strip()[0] in "\"'":
        raise ValueError("base_url must not be in quotation marks: leave them out")
    parts = _split(url)
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts is None or parts.scheme.lower() not in schemes:
        # The address is not repeated: people paste URLs with a token in them.
        raise ValueError(
            f"base_url must be a ws(s):// or http(s):// URL with a host, such as {DEFAULT_BASE_URL}"
        )
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(
            "base_url must hold no query, fragment or user name; pass the key as api_key"
        )
    if not _has_possible_port(parts):
        # It is not repeated either: it is a password where the host of an address is left out.
        raise ValueError(
            "base_url must have a port from 1 to 65535, or none; check what follows the colon of "
            "the host"
        )
    return parts._replace(scheme=schemes[parts.scheme.lower()]).geturl()


def _split(url: str) -> SplitResult | None:
    """Return the parts of an address, or None if it names no host."""
    try:
        parts = urlsplit(str(url).strip())
        # What can not be written in the domain name system is a ValueError.
        host = (parts.hostname or "").encode("idna")
        return parts if host and len(host.split()) == 1 else None
    except ValueError:
        return None


def _has_possible_port(parts: SplitResult) -> bool:
    """Tell whether the port of an address is valid, or left out."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def _plain_json(config: Any) -> dict[str, Any]:
    """Return a deep copy of `config`, which later changes by the caller cannot reach."""
    if config is None:
        return {}
    try:
        text = json.dumps({**config}, allow_nan=False, ensure_ascii=False)
        copied = json.loads(text.encode())
    except (TypeError, ValueError, RecursionError):
        raise ValueError("extra_config must be a mapping that JSON can hold, or None") from None
    assert isinstance(copied, dict)
    for name in copied:
        if (advice := _RESERVED_FIELDS.get(field_name(name))) is not None:
            raise ValueError(f"extra_config must not set {name}: {advice}")
    return copied


@cache
def field_name(name: str) -> str:
    """Return the name of a field as in Tiro's API definition: JSON may have it in camel case."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


def changed_options(options: Options, changes: Mapping[str, Any]) -> Options:
    """Return a validated copy of `options` with other values.

    Raises:
        ValueError: A value is not valid.
    """
    return replace(options, **changes)
