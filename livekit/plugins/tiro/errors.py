"""What went wrong, said once: one table from status to `APIError`, and nothing secret in it.

Every error that leaves this package is an `APIError` of the framework:

- `APIStatusError`: the service refused or failed; `status_code` is the HTTP status that fits.
- `APITimeoutError`: it did not answer in time.
- `APIConnectionError`: it could not be reached, or hung up.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from livekit.agents import APIConnectionError, APIStatusError, APITimeoutError

if TYPE_CHECKING:
    from .protocol import ServiceError

# A credential that is not ours: `token=…` of a URL, `Bearer …` of a header.
_CREDENTIAL = r"(?i)((?:token|key)=|\bbearer\s+)[^\s&\"',;}]+"
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
    16: Status("UNAUTHENTICATED", 401, False),
}
"""The gRPC codes. One that is not here is reported as 500, retryable."""

ROTATION_CODES = frozenset({1, 4, 10, 11})
"""The codes that end a healthy session without a fault: limits of length and time."""

_ADVICE = {
    400: "Check the options given to tiro.STT (language, max_alternatives, extra_config).",
    401: "Check the key: api_key, TIRO_API_KEY or TIRO_SPEECH_KEY.",
    403: "The key is not allowed to do this; ask Tiro for access, or use another key.",
    404: "Check base_url or TIRO_BASE_URL.",
    429: "The quota or the rate limit is used up; wait, open fewer streams, or ask Tiro for more.",
    501: "The service does not know this method; check base_url or TIRO_BASE_URL.",
}
_ADVICE_SERVER = "The fault is at the service; try again, and tell Tiro if it lasts."


class Redactor:
    """Takes the key, as it is and as URLs write it, out of text that comes from elsewhere."""

    def __init__(self, key: str) -> None:
        self._secrets = sorted({key, quote(key), quote(key, safe="")}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        text = re.sub(_CREDENTIAL, r"\1[...]", text)
        if len(text) > _MAX_SERVER_TEXT:
            text = text[:_MAX_SERVER_TEXT] + "…"
        return text


def from_service(error: ServiceError, redact: Redactor) -> APIStatusError:
    """Return the exception for an error frame."""
    status = GRPC_STATUS.get(error.code) if error.code is not None else None
    if status is None:
        given = error.http_status or 0
        http = given if 400 <= given < 600 else 500
        status = Status(f"HTTP {http}", http, http != 501)
    said = redact("; ".join(filter(None, (error.message, *error.violations))))
    return _status_error(
        f"Tiro answered {status.name}: {said or 'no reason given'}", status.http, status.retryable
    )


def from_handshake(http_status: int) -> APIStatusError:
    """Return the exception for a websocket handshake that was answered with `http_status`."""
    # Redirects and answers without the upgrade come from an address that is not the service's.
    retryable = http_status >= 400 and http_status != 501
    return _status_error(
        f"Tiro refused the connection with HTTP {http_status}", http_status, retryable
    )


def unreachable(host: str, reason: str) -> APIConnectionError:
    """Return the exception for a connection that could not be made.

    Args:
        host: Host and port, without path and query.
        reason: Kind of failure, free of the URL.
    """
    return APIConnectionError(
        f"could not connect to Tiro at {host}: {reason}. "
        "Check the network, and base_url or TIRO_BASE_URL."
    )


def connect_timeout(host: str, seconds: float) -> APITimeoutError:
    """Return the exception for a connection that was not made within `seconds`."""
    return APITimeoutError(
        f"no connection to Tiro at {host} within {seconds:g} s. "
        "Check the network, and base_url or TIRO_BASE_URL."
    )


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


def mute(seconds: float) -> APITimeoutError:
    """Return the exception for audio that may be speech and gets no answer, time after time."""
    return APITimeoutError(
        f"Tiro said nothing for {seconds:.0f} s to audio that may be speech, and not for the "
        f"first time. {_ADVICE_SERVER}"
    )


def unanswered(seconds: float) -> APITimeoutError:
    """Return the exception for audio that got no answer within `seconds` of its end."""
    return APITimeoutError(
        f"Tiro did not answer within {seconds:g} s of the end of the audio. {_ADVICE_SERVER}"
    )


def unexpected(error: Exception) -> APIConnectionError:
    """Return the exception for a fault of this package, so that the framework can recover.

    Only the type is named: the text of a foreign exception can hold anything.
    """
    return APIConnectionError(
        f"unexpected {type(error).__name__} in the Tiro plugin. Please report it."
    )


def _status_error(message: str, http_status: int, retryable: bool) -> APIStatusError:
    advice = _ADVICE.get(http_status, _ADVICE_SERVER)
    return APIStatusError(f"{message}. {advice}", status_code=http_status, retryable=retryable)
