"""The service's JSON in both directions: client messages in by the gateway's rules, frames out."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

ErrorStyle = Literal["v1", "v2"]
Json = Mapping[str, Any]

# The domain that the service puts in place of Google's for the types of error details.
TYPE_DOMAIN = "types.talgreinir.is"
# Bytes; the limit of gRPC for one message from the client.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
# Bytes of JSON that do not make a whole message yet; the longest message that gRPC takes has 5.6
# million, as base64.
MAX_UNREAD_BYTES = 8 * 1024 * 1024
# Bytes up to which an unfinished message is read anew with each frame. A longer one is read when
# all its brackets are closed or it has doubled, so that it costs a few times its length at most.
EAGER_BYTES = 4096
# Objects, lists and members that are read at once; each takes some 50 bytes or more.
MAX_VALUES = 100_000
# Characters; the config stays in the record of a connection.
MAX_CONFIG_CHARACTERS = 64 * 1024
# Hz; the rates the service's definition allows.
RATES = (8000, 48000)
# Hypotheses; the most the service's definition allows.
MAX_ALTERNATIVES = 30
# A whole number that the definition's JSON may write as a string.
INTEGER = re.compile(r"-?[0-9]{1,19}")
# The encodings of the service's definition, in the order of their numbers.
ENCODINGS = ("ENCODING_UNSPECIFIED", "LINEAR16", "FLAC", "MP3")

# gRPC status codes by name.
UNKNOWN = 2
INVALID_ARGUMENT = 3
NOT_FOUND = 5
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
UNIMPLEMENTED = 12
INTERNAL = 13
UNAUTHENTICATED = 16

# The gateway's HTTP status and its text for each gRPC code.
HTTP_STATUS = {
    1: (408, "Request Timeout"),
    2: (500, "Internal Server Error"),
    3: (400, "Bad Request"),
    4: (504, "Gateway Timeout"),
    5: (404, "Not Found"),
    6: (409, "Conflict"),
    7: (403, "Forbidden"),
    8: (429, "Too Many Requests"),
    9: (400, "Bad Request"),
    10: (409, "Conflict"),
    11: (400, "Bad Request"),
    12: (501, "Not Implemented"),
    13: (500, "Internal Server Error"),
    14: (503, "Service Unavailable"),
    15: (500, "Internal Server Error"),
    16: (401, "Unauthorized"),
}


class GatewayError(Exception):
    """A client message that the gateway itself cannot read."""


@dataclass(frozen=True)
class Violation:
    """One entry of an error's details: which field, in snake case, and what is wrong with it."""

    field: str
    description: str


class StatusError(Exception):
    """A gRPC status that ends a connection with an error frame.

    Attributes:
        code: The gRPC code, 1 to 16.
        message: The text of the status.
        violations: The fields at fault, in order.
    """

    def __init__(self, code: int, message: str, violations: Sequence[Violation] = ()) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.violations = tuple(violations)


@dataclass(frozen=True)
class SpeechConfig:
    """What a client asked for in its first message; names without a remark are the service's.

    Attributes:
        language: `languageCode`, letter by letter.
        sample_rate: `sampleRateHertz`, 0 if not given.
        word_offsets: `enableWordTimeOffsets`.
        punctuation: `enableAutomaticPunctuation`.
        diarization: `diarizationConfig.enableSpeakerDiarization`.
        phrases: The `phrases` of all `speechContexts`. The definition that this server follows does
            not know them, so they are read as they come, and change nothing.
        raw: The `streamingConfig` object as the client sent it.
    """

    language: str = ""
    sample_rate: int = 0
    encoding: int = 0
    max_alternatives: int = 0
    word_offsets: bool = False
    punctuation: bool = False
    diarization: bool = False
    interim_results: bool = False
    single_utterance: bool = False
    phrases: tuple[str, ...] = ()
    raw: Json = field(default_factory=dict)


@dataclass(frozen=True)
class ClientMessage:
    """One decoded message of a client.

    Attributes:
        audio: `audioContent`, None if the message has none.
        config: `streamingConfig`, None if the message has none.
        has_config: Whether the `streamingConfig` itself holds a `config`.
    """

    audio: bytes | None = None
    config: SpeechConfig | None = None
    has_config: bool = False


class MessageReader:
    """Takes frames apart into messages: all frames of a client are one stream of JSON values.

    Time and memory grow with the length of what a client sends, however it is cut into frames.
    """

    def __init__(self) -> None:
        self._unread = bytearray()
        # Objects and lists that are open at the end of `_unread`.
        self._depth = 0
        # Bytes of `_unread` when it was last tried.
        self._tried = 0

    def feed(self, frame: str) -> Iterator[ClientMessage]:
        """Yield the messages that the frame completes.

        Raises:
            GatewayError: What follows is not JSON, not a message of the service, or too long.
        """
        if len(self._unread) + len(frame) > MAX_UNREAD_BYTES:
            self._unread.clear()
            raise GatewayError(f"a message of more than {MAX_UNREAD_BYTES} bytes")
        # A line feed ends each frame, so only white space can lie across two of them.
        text = frame + "\n"
        if self._unread:
            self._unread += text.encode(errors="surrogatepass")
            self._depth += _depth(text)
            size = len(self._unread)
            # Syntax errors in a long value are found late, the end of it is not.
            if self._depth > 0 and EAGER_BYTES < size < 2 * self._tried:
                return
            text = self._unread.decode(errors="surrogatepass")
            self._unread.clear()
        yield from self._read(text)

    def _read(self, text: str) -> Iterator[ClientMessage]:
        """Yield the messages in a text, and keep what is not whole yet."""
        if len(text) > MAX_VALUES and sum(map(text.count, "[{,")) > MAX_VALUES:
            raise GatewayError(f"more than {MAX_VALUES} values at once")
        at = _skip_white_space(text, 0)
        while at < len(text):
            read = _read_value(text, at)
            if read is None:
                self._unread += text[at:].encode(errors="surrogatepass")
                self._depth = _depth(text[at:])
                self._tried = len(self._unread)
                return
            value, end = read
            message = parse_message(value)
            if message.audio is None and end - at > MAX_CONFIG_CHARACTERS:
                raise GatewayError(f"a config of more than {MAX_CONFIG_CHARACTERS} characters")
            at = _skip_white_space(text, end)
            yield message


_decoder = json.JSONDecoder()
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[][{}]', re.DOTALL)
_STEPS = {"{": 1, "[": 1, "}": -1, "]": -1}


def _skip_white_space(text: str, at: int) -> int:
    match = _WHITE_SPACE.match(text, at)
    return match.end() if match else at


def _depth(frame: str) -> int:
    """Return how many more objects and lists a frame opens than it closes."""
    return sum(_STEPS.get(token, 0) for token in _STRUCTURE.findall(frame))


def _read_value(text: str, at: int) -> tuple[Any, int] | None:
    """Return the JSON value that starts at `at`, and where it ends; None if it is not complete.

    Raises:
        GatewayError: It is not JSON.
    """
    try:
        return _decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        # A string that is open at the end of a frame is an error: it has the line feed in it.
        if error.pos >= len(text.rstrip(" \t\n\r")) and "control" not in error.msg:
            return None
        problem = _syntax_error(text, error)
    except (ValueError, RecursionError):
        problem = "json: a number too long or a value too deep"
    # Not from within the handler: the error would hold on to the whole text.
    raise GatewayError(problem)


# What Go's decoder says where Python's stops, by the start of Python's message.
_SYNTAX_ERRORS = (
    ("Expecting property name", "looking for beginning of object key string"),
    ("Expecting ':'", "after object key"),
    ("Expecting ','", "after object key:value pair"),
    ("Invalid control", "in string literal"),
    ("Invalid \\", "in string escape code"),
)


def _syntax_error(text: str, error: json.JSONDecodeError) -> str:
    for literal in ("null", "true", "false"):
        rest = text[error.pos :]
        if rest[:1] == literal[0] and error.msg.startswith("Expecting value"):
            at = next(n for n, letter in enumerate(literal) if rest[n : n + 1] != letter)
            return (
                f"invalid character {rest[at]!r} in literal {literal} (expecting {literal[at]!r})"
            )
    where = "looking for beginning of value"
    for start, meaning in _SYNTAX_ERRORS:
        if error.msg.startswith(start):
            where = meaning
    return f"invalid character {text[error.pos]!r} {where}"


def parse_message(value: Any) -> ClientMessage:
    """Read one JSON value as the gateway does: either spelling, null as unset, no extras.

    Raises:
        GatewayError: A field has the wrong JSON type, an unknown name, or is not base64.
    """
    message = {} if value is None else _object(value)
    streaming = _get(message, "streamingConfig")
    if streaming is not None:
        return _config_message(_object(streaming))
    if "audioContent" in message or "audio_content" in message:
        return ClientMessage(audio=_bytes(_get(message, "audioContent")))
    return ClientMessage()


def _config_message(streaming: Json) -> ClientMessage:
    config = _get(streaming, "config")
    inner = {} if config is None else _object(config)
    diarization = _get(inner, "diarizationConfig")
    speakers = {} if diarization is None else _object(diarization)
    _int(_get(speakers, "minSpeakerCount"))
    _int(_get(speakers, "maxSpeakerCount"))
    speech = SpeechConfig(
        language=_str(_get(inner, "languageCode")),
        sample_rate=_int(_get(inner, "sampleRateHertz")),
        encoding=_encoding(_get(inner, "encoding")),
        max_alternatives=_int(_get(inner, "maxAlternatives")),
        word_offsets=_bool(_get(inner, "enableWordTimeOffsets")),
        punctuation=_bool(_get(inner, "enableAutomaticPunctuation")),
        diarization=_bool(_get(speakers, "enableSpeakerDiarization")),
        interim_results=_bool(_get(streaming, "interimResults")),
        single_utterance=_bool(_get(streaming, "singleUtterance")),
        phrases=tuple(_phrases(_get(inner, "speechContexts"))),
        raw=streaming,
    )
    return ClientMessage(config=speech, has_config=config is not None)


def _phrases(contexts: Any) -> Iterator[str]:
    """Yield the texts in what should be a list of objects with lists of texts."""
    for context in contexts if isinstance(contexts, list) else []:
        phrases = context.get("phrases") if isinstance(context, dict) else None
        yield from (p for p in phrases or () if isinstance(phrases, list) and isinstance(p, str))


def _get(message: Json, name: str) -> Any:
    """Return a field by its camel case name or its snake case one; None if unset."""
    if name in message:
        return message[name]
    return message.get(_snake(name))


@functools.cache
def _snake(name: str) -> str:
    """Return a camel case name in snake case."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


def _wrong_type(value: Any, wanted: str) -> GatewayError:
    kinds = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
    kind = kinds.get(type(value), "object")
    return GatewayError(f"json: cannot unmarshal {kind} into Go value of type {wanted}")


def _object(value: Any) -> Json:
    if isinstance(value, dict):
        return value
    raise _wrong_type(value, "map[string]json.RawMessage")


def _str(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        # Halves of surrogate pairs can be escaped in JSON, but are no text.
        return value.encode(errors="surrogatepass").decode(errors="replace")
    raise _wrong_type(value, "string")


def _bool(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _wrong_type(value, "bool")


def _int(value: Any) -> int:
    if value is None:
        return 0
    number = int(value) if isinstance(value, str) and INTEGER.fullmatch(value) else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise _wrong_type(value, "int32")
    if not -(2**31) <= number < 2**31:
        raise GatewayError(f"json: cannot unmarshal number {number} into Go value of type int32")
    return number


def _encoding(value: Any) -> int:
    if not isinstance(value, str):
        return _int(value)
    if value in ENCODINGS:
        return ENCODINGS.index(value)
    enum = "tiro.speech.v1alpha.RecognitionConfig_AudioEncoding"
    raise GatewayError(f'unknown value "{_str(value)}" for enum {enum}')


def _bytes(value: Any) -> bytes:
    text = _str(value)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        at = next((n for n, c in enumerate(text) if c not in alphabet), len(text))
        raise GatewayError(f"illegal base64 data at input byte {at}") from None


def check_first(message: ClientMessage) -> SpeechConfig:
    """Return the config of a connection's first message.

    Raises:
        StatusError: It is no streaming config, or holds none; the language is not looked at.
    """
    if message.audio is not None:
        problem = Violation("audio_content", "the first message has to be a streaming_config")
    elif message.config is None:
        problem = Violation("oneof_streaming_request", "set streaming_config or audio_content")
    elif not message.has_config:
        problem = Violation("streaming_config.config", "required")
    else:
        return message.config
    raise invalid([problem])


def check_config(config: SpeechConfig, *, known_language: bool) -> None:
    """Refuse what the service refuses.

    Raises:
        StatusError: INVALID_ARGUMENT with the fields at fault, or INTERNAL without a rate.
    """
    prefix = "streaming_config.config"
    problems = []
    if config.encoding != ENCODINGS.index("LINEAR16"):
        problems.append(Violation(f"{prefix}.encoding", "only LINEAR16 can be streamed"))
    inner = []
    if config.encoding == 0:
        inner.append(Violation(f"{prefix}.encoding", "an encoding is required"))
    if config.sample_rate and not RATES[0] <= config.sample_rate <= RATES[1]:
        limits = f"must be between {RATES[0]} and {RATES[1]}"
        inner.append(Violation(f"{prefix}.sample_rate_hertz", limits))
    if not known_language:
        text = f"no model for language code '{config.language}'"
        inner.append(Violation(f"{prefix}.language_code", text))
    if not 0 <= config.max_alternatives <= MAX_ALTERNATIVES:
        limits = f"must be between 0 and {MAX_ALTERNATIVES}"
        inner.append(Violation(f"{prefix}.max_alternatives", limits))
    if inner:
        problems.append(Violation(prefix, "this field did not pass, see the entries under it"))
    if problems or inner:
        raise invalid(problems + inner)
    if config.sample_rate == 0:
        raise StatusError(INTERNAL, "no sample rate")


def invalid(problems: Sequence[Violation]) -> StatusError:
    """Return the INVALID_ARGUMENT that lists fields."""
    return StatusError(INVALID_ARGUMENT, "request not valid, the details say why", problems)


def check_size(audio: bytes) -> None:
    """Refuse a message over gRPC's limit.

    Raises:
        StatusError: RESOURCE_EXHAUSTED.
    """
    # One byte of field number, seven bits of length to a byte, then the audio.
    size = 1 + max(1, (len(audio).bit_length() + 6) // 7) + len(audio)
    if size > MAX_MESSAGE_BYTES:
        text = f"SERVER: Received message larger than max ({size} vs. {MAX_MESSAGE_BYTES})"
        raise StatusError(RESOURCE_EXHAUSTED, text)


@dataclass(frozen=True)
class TimedWord:
    """A word of a result frame; times in milliseconds from the start of the stream."""

    text: str
    start_ms: int
    end_ms: int
    speaker: int = 0


@dataclass(frozen=True)
class Alternative:
    """One hypothesis of a result frame."""

    transcript: str
    words: Sequence[TimedWord] = ()


@dataclass(frozen=True)
class FrameStyle:
    """How the gateway writes its frames.

    Attributes:
        errors: `v1` for the error bodies of grpc-gateway 1, `v2` for those of 2.
        emit_unpopulated: Whether fields with their default value are written.
    """

    errors: ErrorStyle = "v1"
    emit_unpopulated: bool = True

    def result(self, alternatives: Sequence[Alternative], *, final: bool) -> str:
        """Return the frame of one result; of an empty response if there are no alternatives."""
        results = []
        if alternatives:
            result: dict[str, Any] = {
                "alternatives": [self._alternative(each) for each in alternatives]
            }
            results.append(result | self._filled({"isFinal": final, "stability": 0}))
        return self._response({"results": results})

    def end_of_utterance(self) -> str:
        """Return the frame that follows the final of a single utterance."""
        return self._response({"results": [], "speechEventType": "END_OF_SINGLE_UTTERANCE"})

    def error(self, status: StatusError) -> str:
        """Return the frame of a status that came from the service behind the gateway."""
        body: dict[str, Any]
        details = self._details(status)
        if self.errors == "v2":
            body = {"code": status.code, "message": status.message}
        else:
            http_code, http_status = HTTP_STATUS.get(status.code, HTTP_STATUS[UNKNOWN])
            body = {
                "grpcCode": status.code,
                "httpCode": http_code,
                "message": status.message,
                "httpStatus": http_status,
            }
        return _dump({"error": body | details})

    def gateway_error(self, message: str, code: int = UNKNOWN) -> str:
        """Return the frame of a failure in the gateway itself, before the stream was open."""
        body: dict[str, Any] = {"message": message, "code": code}
        if self.errors == "v2":
            body = {"code": code, "message": message}
        else:
            body = {"error": message, **body}
        return _dump(body | self._details(None))

    def not_found(self) -> str:
        """Return the frame that a wrong path gets."""
        return self.gateway_error("Not Found", NOT_FOUND) if self.errors == "v2" else "Not Found"

    def _response(self, fields: dict[str, Any]) -> str:
        defaults: dict[str, Any] = {
            "error": None,
            "results": [],
            "speechEventType": "SPEECH_EVENT_UNSPECIFIED",
        }
        return _dump({"result": self._filled(defaults | fields, defaults)})

    def _alternative(self, alternative: Alternative) -> dict[str, Any]:
        words = [
            self._filled(
                {
                    "startTime": _duration(word.start_ms),
                    "endTime": _duration(word.end_ms),
                    "word": word.text,
                    "confidence": 0,
                    "speakerTag": word.speaker,
                }
            )
            for word in alternative.words
        ]
        fields = {"transcript": alternative.transcript, "confidence": 0, "words": words}
        return self._filled(fields)

    def _filled(
        self, fields: dict[str, Any], defaults: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        if self.emit_unpopulated:
            return fields
        if defaults is None:
            return {name: value for name, value in fields.items() if value}
        return {name: value for name, value in fields.items() if value != defaults[name]}

    def _details(self, status: StatusError | None) -> dict[str, Any]:
        if status is None or not status.violations:
            return {"details": []} if self.emit_unpopulated else {}
        entries = [
            {"field": each.field, "description": each.description} for each in status.violations
        ]
        kind = f"{TYPE_DOMAIN}/google.rpc.BadRequest"
        return {"details": [{"@type": kind, "fieldViolations": entries}]}


def _duration(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds}.{rest:03}s" if rest else f"{seconds}s"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
