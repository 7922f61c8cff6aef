"""Tiro's wire format, without any I/O: what to send, and what a received frame means."""

from __future__ import annotations

import json
import unicodedata
from binascii import b2a_base64
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from .options import field_name

if TYPE_CHECKING:
    from .options import Options

END_OF_AUDIO = b'{"audioContent":""}'
"""The end marker: no more audio comes on this connection."""

# s; no duration of the protocol's `google.protobuf.Duration` is longer (10 000 years).
_MAX_SECONDS = 315_576_000_000
# What `speechEventType` holds in a response that is no event.
_NO_EVENT = (0, "0", "", "SPEECH_EVENT_UNSPECIFIED")
_AUDIO_HEAD = b'{"audioContent":"'
_AUDIO_TAIL = b'"}'
# Reason phrases, because a gateway can answer with the bare words ("Not Found") for a frame.
_REASONS = {status.phrase.lower(): status.value for status in HTTPStatus if status >= 400}


class Word(NamedTuple):
    """One recognised word."""

    text: str
    start: float
    """Seconds of the connection's audio."""
    end: float
    confidence: float
    """0 to 1; 0 is unknown."""
    speaker: int
    """The speaker's number; 0 is unknown."""


class Alternative(NamedTuple):
    """One reading of what was said."""

    text: str
    confidence: float = 0.0
    words: tuple[Word, ...] = ()
    """Only on finals."""


class Result(NamedTuple):
    """A hypothesis (interim) or a final."""

    is_final: bool
    alternatives: tuple[Alternative, ...]
    """At least one, best first."""
    start: float | None = None
    """Where its first word starts, seconds of the connection's audio; None if it has no times."""
    end: float | None = None
    edges: tuple[tuple[float, float], ...] = ()
    """When its first word starts and ends, and its last, if these times are in order."""


class ServiceError(NamedTuple):
    """What the service says went wrong. The text is the server's, and can repeat the key."""

    code: int | None = None
    """The gRPC code, if it gave one."""
    http_status: int | None = None
    message: str = ""
    violations: tuple[str, ...] = ()
    """`field: description` of each field that it refused."""
    odd_path: str = ""
    """The path that was asked for, if it differs from Tiro's own."""

    def __repr__(self) -> str:
        return f"ServiceError(code={self.code}, http_status={self.http_status})"


class Response(NamedTuple):
    """What one frame says: results, an error, an event, or none of them: a segment without words.

    Results keep the order of the frame: what comes before a final in it is older than the final.
    Finals have words; a final without any counts as no result.
    """

    results: tuple[Result, ...] = ()
    error: ServiceError | None = None
    event: str = ""
    """The name of the speech event, or its number; empty for none. It makes no difference which."""


def encode_config(options: Options, sample_rate: int) -> bytes:
    """Return the first message of a connection.

    Args:
        options: The stream's settings.
        sample_rate: Hz of the audio that follows.
    """
    config: dict[str, Any] = {
        "encoding": "LINEAR16",
        "sampleRateHertz": sample_rate,
        "languageCode": options.language,
        "enableWordTimeOffsets": True,
        "enableAutomaticPunctuation": options.punctuate,
        "maxAlternatives": options.max_alternatives,
    }
    if options.diarization:
        diarization: dict[str, Any] = {"enableSpeakerDiarization": True}
        if options.min_speakers is not None:
            diarization["minSpeakerCount"] = options.min_speakers
        if options.max_speakers is not None:
            diarization["maxSpeakerCount"] = options.max_speakers
        config["diarizationConfig"] = diarization
    if phrases := options.phrases:
        config["speechContexts"] = [{"phrases": phrases}]
    given = {field_name(name) for name in options.extra_config}
    config = {name: value for name, value in config.items() if field_name(name) not in given}
    config.update(options.extra_config)
    streaming = {"config": config, "interimResults": options.interim_results}
    return json.dumps({"streamingConfig": streaming}, ensure_ascii=False).encode()


def encode_audio(pcm: bytes | bytearray | memoryview) -> bytes:
    """Return the text frame for a chunk of 16-bit little-endian mono samples.

    An empty chunk would be the end marker, so it must not come here.
    """
    return b"".join((_AUDIO_HEAD, b2a_base64(pcm, newline=False), _AUDIO_TAIL))


def decode(frame: str | bytes) -> Response | None:
    """Return what a received frame means, or None if the service sends no such frame.

    Never raises, whatever the frame holds.
    """
    text = frame.decode("utf-8", "replace") if isinstance(frame, bytes) else frame
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return _plain_text(text)
    if not isinstance(document, dict):
        return None
    body = document.get("result", document)
    if not isinstance(body, dict):
        body = {}
    error = None
    for holder in (document, body):
        if error is None and (holder.get("error") or "code" in holder):
            error = _error(holder)
    results = _results(body.get("results"))
    event = "" if results else _event(body)
    if error is None and not results and not event and not _is_empty_response(document, body):
        return None
    return Response(results, error, event)


def _event(body: dict[str, Any]) -> str:
    """Return the speech event of a response, by name or by number; empty if it has none."""
    event = _either(body, "speechEventType", "speech_event_type")
    if isinstance(event, bool) or not isinstance(event, (str, int)):
        return ""
    return "" if event in _NO_EVENT else str(event)


def _is_empty_response(document: dict[str, Any], body: dict[str, Any]) -> bool:
    """Tell whether a frame says that a segment has no words; an empty hypothesis does not."""
    raw = _dicts(body.get("results"))
    hypotheses = [item for item in raw if _either(item, "isFinal", "is_final") is not True]
    return ("result" in document or "results" in body) and not hypotheses


def _plain_text(text: str) -> Response | None:
    """Read a frame that is not JSON: an HTTP reason phrase is an error, all else is noise."""
    status = _REASONS.get(text.strip().lower())
    if status is None:
        return None
    return Response(error=ServiceError(http_status=status, message=text.strip()))


def _error(holder: dict[str, Any]) -> ServiceError | None:
    """Find the error in a frame or in its `result`.

    The gateway writes it as an object or a text under `error`, or as `code` and `message` at the
    top.
    """
    error = holder.get("error")
    # A status of code 0 with nothing else in it is gRPC's OK.
    if isinstance(error, dict) and any(error.values()):
        return _status(error)
    if error and isinstance(error, str):
        return _status({**holder, "message": holder.get("message") or error})
    if "code" in holder and "message" in holder and (holder["code"] or holder["message"]):
        return _status(holder)
    return None


def _status(body: dict[str, Any]) -> ServiceError:
    message = body.get("message")
    return ServiceError(
        code=_first_int(body, "grpcCode", "grpc_code", "code"),
        http_status=_first_int(body, "httpCode", "http_code"),
        message=_clean(message) if isinstance(message, str) else "",
        violations=tuple(_violations(body.get("details"))),
    )


def _violations(details: Any) -> list[str]:
    """Return the field violations among the details, without the field's common prefix."""
    found = []
    for detail in _dicts(details):
        for violation in _dicts(_either(detail, "fieldViolations", "field_violations")):
            field = _clean(violation.get("field")).removeprefix("streaming_config.")
            description = _clean(violation.get("description"))
            found.append(": ".join(part for part in (field, description) if part))
    return [violation for violation in found if violation]


def _results(raw: Any) -> tuple[Result, ...]:
    results = []
    for item in _dicts(raw):
        alternatives = _dicts(item.get("alternatives"))
        if alternatives:
            is_final = _either(item, "isFinal", "is_final") is True
            result = _final(alternatives) if is_final else _interim(alternatives[0])
            if not is_final or result.alternatives[0].text:
                results.append(result)
    return tuple(results)


def _interim(best: dict[str, Any]) -> Result:
    """Build a hypothesis of its best reading, without words: the next one replaces it soon."""
    words = best.get("words")
    first = last = None
    if isinstance(words, list) and words:
        if not isinstance(words[0], dict) or not isinstance(words[-1], dict):
            words = _dicts(words) or [{}]
        first, last = _span(words[0]), _span(words[-1])
    return _result(False, (_alternative(best, ()),), first, last)


def _final(raw: list[dict[str, Any]]) -> Result:
    best, spans = _words(raw[0].get("words"))
    read = [_alternative(raw[0], best)]
    read += [_alternative(other, _words(other.get("words"))[0]) for other in raw[1:]]
    return _result(True, tuple(read), spans[0], spans[-1])


def _result(
    is_final: bool,
    alternatives: tuple[Alternative, ...],
    first: tuple[float, float] | None,
    last: tuple[float, float] | None,
) -> Result:
    """Build a result with the times of its first and last word, if it has any that can be true.

    Where a word ends before it starts, nobody can tell which of the two is wrong.
    """
    if first is None or last is None or not first[0] <= last[1]:
        return Result(is_final, alternatives)
    if first[1] < first[0] or last[1] < last[0]:
        return Result(is_final, alternatives)
    in_order = first[0] <= last[0] and first[1] <= last[1]
    return Result(is_final, alternatives, first[0], last[1], (first, last) if in_order else ())


def _alternative(raw: dict[str, Any], words: tuple[Word, ...]) -> Alternative:
    confidence = raw.get("confidence")
    return Alternative(
        _clean(raw.get("transcript")), _fraction(confidence) if confidence else 0.0, words
    )


def _words(raw: Any) -> tuple[tuple[Word, ...], list[tuple[float, float] | None]]:
    """Build the words that have a text and times. Return the times of each word, too."""
    words, spans = [], []
    for item in _dicts(raw):
        span = _span(item)
        spans.append(span)
        text = _clean(item.get("word"))
        if text and span is not None:
            # Both are 0 where the service does not fill them, which is nearly everywhere.
            confidence, tag = item.get("confidence"), item.get("speakerTag")
            confidence = _fraction(confidence) if confidence else 0.0
            if tag != 0:
                tag = max(0, _first_int(item, "speakerTag", "speaker_tag") or 0)
            words.append(Word(text, min(span), span[1], confidence, tag))
    return tuple(words), spans or [None]


def _span(word: dict[str, Any]) -> tuple[float, float] | None:
    """Return when a word starts and ends, as it says, or None if it does not."""
    first, last = word.get("startTime"), word.get("endTime")
    if isinstance(first, str) and isinstance(last, str):
        # As the service writes them; `_odd_span` reads times that are odd in any way.
        try:
            start, end = float(first.removesuffix("s")), float(last.removesuffix("s"))
        except ValueError:
            return _odd_span(word)
        if 0 <= start <= end <= _MAX_SECONDS and end:
            return start, end
    return _odd_span(word)


def _odd_span(word: dict[str, Any]) -> tuple[float, float] | None:
    start = _seconds(_either(word, "startTime", "start_time"))
    end = _seconds(_either(word, "endTime", "end_time"))
    if not end:
        # No word is over at 0.0: the field is there, and nobody filled it.
        return None
    return (end if start is None else start), end


def _seconds(value: Any) -> float | None:
    """Read a duration: "0.660s", "4s" or a number; None if it is none of them."""
    if isinstance(value, str):
        value = value.strip().removesuffix("s")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= _MAX_SECONDS else None


def _fraction(value: Any) -> float:
    """Read a confidence; all that is not a number of 0 to 1 is unknown."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    return 0.0


def _first_int(holder: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = holder.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _either(holder: dict[str, Any], camel: str, snake: str) -> Any:
    """Look a field up by its JSON name, then by its proto name."""
    value = holder.get(camel)
    return holder.get(snake) if value is None else value


def _dicts(value: Any) -> list[dict[str, Any]]:
    """Return the objects in what should be a list of objects."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _clean(value: Any) -> str:
    """Return text in NFC, trimmed, without the lone surrogates that no encoder takes."""
    if not isinstance(value, str):
        return ""
    if value.isascii():
        return value.strip()
    try:
        value.encode()
    except UnicodeEncodeError:
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return unicodedata.normalize("NFC", value).strip()
