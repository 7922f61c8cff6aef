"""What went wrong, said once: one table from status to `APIError`, and nothing secret in it.

Every failure of a call is an `APIError` of the framework; a mistake of the program is a
`ValueError`, `TypeError` or `RuntimeError` where it is made.


- `APIStatusError`: the service refused or failed; `status_code` is the HTTP status that fits.
- `APITimeoutError`: it did not answer in time.
- `APIConnectionError`: it could not be reached, or hung up.
"""

from __future__ import annotations

import base64
import html
import re
import traceback
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from .options import TIRO_PATH, Key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .options import ApiKey
    from .protocol import ServiceError

# A credential that is not ours: `token=…` of a URL, `Bearer …` of a header.
_CREDENTIAL = r"(?i)((?:token|key)=|\bbearer\s+)[^\s&\"',;}]+"
# Characters of a secret by which it is found; the rest is compared one by one.
_SOUGHT = 32
# Characters. A shorter text that is no key is no secret: a number, a tag. A shorter key, as people
# give to a server of their own, is a part of many words: it is the key only where it stands alone.
_SHORTEST_SECRET = 6
# What comes before and after a text that stands by itself, also in an address.
_BEFORE, _AFTER = r"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{2}))", r"(?!\w)"
# Connections whose secrets are looked for: an error repeats that of its own, or of one just before.
_KEYS_REMEMBERED = 8
# A server's text longer than this is a page, not a message (characters).
_MAX_SERVER_TEXT = 500


class Status(NamedTuple):
    """How a gRPC code is reported.

    `http` is never a 4xx but 408, 429 or 499 where `retryable` is set: the framework makes every
    other 4xx final.
    """

    name: str
    http: int
    retryable: bool


UNAUTHENTICATED = 16
"""The gRPC code for a key that is not valid, or not any more."""

GRPC_STATUS = {
    1: Status("CANCELLED", 499, True),
    2: Status("UNKNOWN", 500, True),
    3: Status("INVALID_ARGUMENT", 400, False),
    4: Status("DEADLINE_EXCEEDED", 504, True),
    5: Status("NOT_FOUND", 404, False),
    7: Status("PERMISSION_DENIED", 403, False),
    8: Status("RESOURCE_EXHAUSTED", 429, True),
    9: Status("FAILED_PRECONDITION", 400, False),
    10: Status("ABORTED", 503, True),
    11: Status("OUT_OF_RANGE", 503, True),
    12: Status("UNIMPLEMENTED", 501, False),
    13: Status("INTERNAL", 500, True),
    14: Status("UNAVAILABLE", 503, True),
    15: Status("DATA_LOSS", 500, True),
    UNAUTHENTICATED: Status("UNAUTHENTICATED", 401, False),
}
"""The gRPC codes. One that is not here is reported as 500, retryable."""

ROTATION_CODES = frozenset({1, 4, 10, 11})
"""The codes that end a healthy connection without a fault: limits of length and time. The stream
goes on with the next connection, and nobody is told. The rest of `GRPC_STATUS` is raised, but for
16 with a key that was good before: it is asked for anew."""

_ADVICE = {
    400: "Check the options given to tiro.STT (language, max_alternatives, extra_config).",
    401: "Check the key: api_key, TIRO_API_KEY or TIRO_SPEECH_KEY.",
    403: "The key is not allowed to do this; ask Tiro for access, or use another key.",
    404: "Check base_url or TIRO_BASE_URL.",
    429: "The quota or the rate limit is used up; wait, open fewer streams, or ask Tiro for more.",
    501: "The service does not know this method; check base_url or TIRO_BASE_URL.",
}
_ADVICE_ADDRESS = "What answers there is not Tiro's service; check base_url or TIRO_BASE_URL."
_ADVICE_NO_PROXY = "Hosts in NO_PROXY are reached without one."
_ADVICE_PROXY = (
    "Check address, user and password of the proxy, which has to speak HTTP: it is that of "
    "WSS_PROXY, HTTPS_PROXY or ALL_PROXY (of WS_PROXY, HTTP_PROXY or ALL_PROXY for ws://), or of "
    f"the http_session or the worker that you gave one. {_ADVICE_NO_PROXY}"
)
_ADVICE_SERVER = "The fault is at the service; try again, and tell Tiro if it lasts."


class Redactor:
    """Takes secrets out of text that comes from elsewhere, however they are written there.

    Each character of one may stand for itself, or be escaped as in a URL (once or twice), in JSON,
    in HTML or in a quoted string. A key of less than 6 characters is taken out where it stands by
    itself: in the midst of a word it tells nothing, and the text would be ruined.
    """

    def __init__(self, key: ApiKey = "") -> None:
        """Learn what to look for.

        Args:
            key: The key, as it is. A function that returns keys tells none yet.
        """
        self._known: list[tuple[_Secret, ...]] = []
        if isinstance(key, str):
            self.learn(key)

    def learn(self, key: str, others: Iterable[str] = ()) -> None:
        """Look for the secrets of another connection too, and for those of the latest ones before.

        Args:
            key: The key.
            others: Other texts to take out. Short texts among them are no secrets.
        """
        parts = [part for text in others for part in (text, text.rpartition(" ")[2])]
        secrets = dict.fromkeys([key, *(part for part in parts if len(part) >= _SHORTEST_SECRET)])
        known = tuple(_Secret(secret) for secret in secrets if secret)
        if known and known not in self._known:
            self._known = [*self._known, known][-_KEYS_REMEMBERED:]

    def __call__(self, text: str) -> str:
        """Return `text` without the secrets and other credentials, cut to a message."""
        for secrets in self._known:
            for secret in secrets:
                text = secret.cut_from(text)
        text = re.sub(_CREDENTIAL, r"\1[...]", text)
        if len(text) > _MAX_SERVER_TEXT:
            text = text[:_MAX_SERVER_TEXT] + "…"
        return text


class _Secret:
    """A text to be looked for in all its forms. Two are equal if their texts are."""

    def __init__(self, text: str) -> None:
        self._text = Key(text)
        self._is_short = len(text) < _SHORTEST_SECRET

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def cut_from(self, text: str) -> str:
        """Return `text` with "[key]" in place of the secret."""
        for form in self._encoded:
            if self._is_short:
                text = re.sub(_BEFORE + re.escape(form) + _AFTER, "[key]", text)
            else:
                text = text.replace(form, "[key]")
        cut, at = [], 0
        for found in self._pattern.finditer(text):
            if found.start() >= at:
                cut += [text[at : found.start()], "[key]"]
                at = self._end(text, found.end())
        return "".join([*cut, text[at:]])

    def _end(self, text: str, at: int) -> int:
        """Return where a secret ends whose beginning was found up to `at`, even if cut off."""
        for character in self._text[_SOUGHT:]:
            found = _form(character).match(text, at)
            if found is None:
                break
            at = found.end()
        return at

    @property
    def _encoded(self) -> set[str]:
        data = self._text.encode()
        forms = (base64.b64encode(data), base64.urlsafe_b64encode(data))
        return {form.decode().rstrip("=") for form in forms}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # A pattern for all of a signed token would take the event loop a quarter of a second.
        forms = "".join(map(_any_form, self._text[:_SOUGHT]))
        return re.compile(_BEFORE + forms + _AFTER if self._is_short else forms)


@lru_cache(maxsize=1024)
def _form(character: str) -> re.Pattern[str]:
    return re.compile(_any_form(character))


def _any_form(character: str) -> str:
    """Return a pattern for a character of a key, plain or escaped."""
    data = character.encode()
    escapes = [
        "".join(f"%{byte:02x}" for byte in data),
        "".join(f"%25{byte:02x}" for byte in data),
        "".join(f"\\x{byte:02x}" for byte in data),
        "".join(f"\\u{unit.hex()}" for unit in _utf16_units(character)),
        f"&#{ord(character)};",
        f"&#x{ord(character):x};",
    ]
    named = html.escape(character)
    if named != character:
        # Two equal alternatives for a character would double the time to match, for each of them.
        escapes.append(named)
    plain = [character, "\\" + character, *(["+"] if character == " " else [])]
    forms = [*map(re.escape, plain), *(f"(?i:{re.escape(escape)})" for escape in escapes)]
    return f"(?:{'|'.join(forms)})"


def _utf16_units(character: str) -> list[bytes]:
    data = character.encode("utf-16-be")
    return [data[at : at + 2] for at in range(0, len(data), 2)]


def from_service(error: ServiceError, redact: Redactor) -> APIStatusError:
    """Return the exception for an error frame."""
    status = GRPC_STATUS.get(error.code) if error.code is not None else None
    if status is None:
        # A gateway may write an HTTP status where gRPC has its code, which is 16 at most.
        given = error.http_status or error.code or 0
        http = given if 400 <= given < 600 else 500
        status = Status(f"HTTP {http}", http, _is_worth_a_retry(http))
    said = redact("; ".join(filter(None, (error.message, *error.violations))))
    return _status_error(
        f"Tiro answered {status.name}: {said or 'no reason given'}",
        status.http,
        status.retryable,
        redact(error.odd_path),
    )


def from_handshake(http_status: int, odd_path: str = "") -> APIStatusError:
    """Return the exception for a websocket handshake that was answered with `http_status`.

    Args:
        http_status: The answer.
        odd_path: The path of the address, without the key, if it differs from Tiro's own.
    """
    if 300 <= http_status < 400:
        return APIStatusError(
            f"Tiro's address redirects to another one (HTTP {http_status}), which is not followed: "
            "the key and the audio go to base_url alone. If the service has moved, set base_url or "
            "TIRO_BASE_URL to its new address.",
            status_code=http_status,
            retryable=False,
        )
    if http_status == 407:
        return from_proxy(http_status)
    retryable = _is_worth_a_retry(http_status)
    return _status_error(
        f"Tiro refused the connection with HTTP {http_status}", http_status, retryable, odd_path
    )


def _is_worth_a_retry(http_status: int) -> bool:
    """Tell whether a request that was answered with `http_status` may be answered otherwise.

    What has no advice of its own (2xx without the upgrade to a websocket, 405, 426) comes from a
    server that is not Tiro's.
    """
    return http_status in (408, 429, 499) or (http_status >= 500 and http_status != 501)


def from_proxy(http_status: int) -> APIStatusError:
    """Return the exception for a proxy that did not let a connection through."""
    return APIStatusError(
        f"the proxy on the way to Tiro answered HTTP {http_status}. {_ADVICE_PROXY}",
        status_code=http_status,
        retryable=http_status >= 500,
    )


def closed() -> APIConnectionError:
    """Return the exception for a connection that is asked for once the STT is closed."""
    return APIConnectionError("this tiro.STT is closed; make a new one", retryable=False)


def unusable_session(why: str) -> APIConnectionError:
    """Return the exception for an HTTP session that can not be used.

    Args:
        why: What is wrong with it.
    """
    return APIConnectionError(
        f"the http_session given to tiro.STT can not be used: {why}. Pass one that is open and was "
        "made in the event loop that uses the STT, or none.",
        retryable=False,
    )


def unreachable(
    host: str, reason: str, *, by_proxy: bool = False, named: str = ""
) -> APIConnectionError:
    """Return the exception for a connection that could not be made.

    Args:
        host: Host and port, without path and query.
        reason: Kind of failure, free of the URL.
        by_proxy: Whether it is the proxy on the way that fails.
        named: Which variable names that proxy, and where it is; empty if that is not known.
    """
    advice = _ADVICE_PROXY if by_proxy else "Check the network, and base_url or TIRO_BASE_URL."
    if named:
        advice = f"Check the proxy: {named}. {_ADVICE_NO_PROXY}"
    return APIConnectionError(f"could not connect to Tiro at {host}: {reason}. {advice}")


def socks(proxy: object, host: str) -> APIConnectionError | None:
    """Return the exception for a proxy that speaks SOCKS, None for any other and for none.

    Args:
        proxy: Its address, if there is one.
        host: Host and port of the service, without path and query.
    """
    if not str(proxy).lower().startswith("socks"):
        return None
    reason = "the proxy on the way speaks SOCKS, and aiohttp only HTTP"
    return unreachable(host, reason, by_proxy=True)


def no_key(why: str, *, retryable: bool = True) -> APIConnectionError:
    """Return the exception for a connection without a key, as the function for it gave none.

    Args:
        why: What it did instead, without the text of an exception, which can hold the key.
        retryable: Whether it may give one when it is asked again.
    """
    return APIConnectionError(
        f"no key for Tiro: the function given as api_key {why}. It must return the key as one "
        "line of plain text, or be async and return that; run it by itself to see what is wrong.",
        retryable=retryable,
    )


def connect_timeout(host: str, seconds: float, limit: int = 0) -> APITimeoutError:
    """Return the exception for a connection that was not made within a time.

    Args:
        host: Host and port, without path and query.
        seconds: The time.
        limit: How many connections to one host the HTTP session allows; 0 for any number. It
            does not tell whether it waits for one of them to end.
    """
    advice = "Check the network, and base_url or TIRO_BASE_URL."
    if limit:
        advice += (
            f" The HTTP session's limit of connections is {limit}: if as many are open, give "
            "tiro.STT an http_session with a higher one."
        )
    return APITimeoutError(f"no connection to Tiro at {host} within {seconds:g} s. {advice}")


def dropped(what: str) -> APIConnectionError:
    """Return the exception for a connection that ended when it should not have."""
    return APIConnectionError(f"Tiro ended the connection {what}. {_ADVICE_SERVER}")


def never_answered() -> APIConnectionError:
    """Return the exception for a connection that ended before the service said anything on it."""
    return APIConnectionError(
        "Tiro ended the connection before it said anything. Check the key (api_key, TIRO_API_KEY "
        "or TIRO_SPEECH_KEY), base_url or TIRO_BASE_URL, and proxies and firewalls on the way; if "
        "they are right, the fault is at the service."
    )


def unresponsive(seconds: float) -> APITimeoutError:
    """Return the exception for audio that may be speech and gets no answer, time after time."""
    return APITimeoutError(
        f"Tiro repeatedly said nothing for {seconds:.0f} s to audio that may be speech. "
        f"{_ADVICE_SERVER}"
    )


def drain_timeout(seconds: float) -> APITimeoutError:
    """Return the exception for audio that got no answer within `seconds` of its end."""
    return APITimeoutError(
        f"Tiro did not answer within {seconds:g} s of the end of the audio. {_ADVICE_SERVER}"
    )


def closed_while_recognizing() -> APIConnectionError:
    """Return the exception for a `recognize()` that was cut short by `aclose()`."""
    return APIConnectionError(
        "the STT was closed while it recognised; what was heard so far is not all. Close it when "
        "`recognize()` has returned.",
        retryable=False,
    )


def as_api_error(error: Exception) -> APIError:
    """Return an `APIError` as it is, and anything else as a fault of this package.

    So the framework can recover. Of a fault only its type and the lines that it came through are
    named: the text of a foreign exception can hold anything.
    """
    if isinstance(error, APIError):
        return error
    calls = reversed(traceback.extract_tb(error.__traceback__))
    lines = ", ".join(f"{Path(call.filename).name} line {call.lineno}" for call in calls)
    where = f" ({lines})" if lines else ""
    return APIConnectionError(
        f"unexpected {type(error).__name__} in the Tiro plugin{where}. Please report it."
    )


def _status_error(message: str, http_status: int, retryable: bool, odd_path: str) -> APIStatusError:
    other = _ADVICE_SERVER if retryable else _ADVICE_ADDRESS
    advice = _ADVICE.get(http_status, other)
    if odd_path and http_status == 404:
        advice += f" Its path is {odd_path}, where Tiro's own address has {TIRO_PATH}."
    return APIStatusError(f"{message}. {advice}", status_code=http_status, retryable=retryable)
