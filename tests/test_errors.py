"""What went wrong: the right class, the right status, a way out for the user, and no secret."""

from __future__ import annotations

import base64
import html
import json
import re
import time
import unicodedata
from typing import Any, cast
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given, strategies as st

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError
from livekit.plugins.tiro import errors
from livekit.plugins.tiro.errors import Redactor
from livekit.plugins.tiro.protocol import ServiceError, decode

from .support.examples import examples
from .support.texts import any_texts

KEY = "lykill+með/bili ="
redact = Redactor(KEY)


def of_code(code: int | None, message: str = "so it is") -> APIStatusError:
    return errors.from_service(ServiceError(code, None, message), redact)


# -- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "retryable"),
    [
        (16, 401, False),
        (7, 403, False),
        (3, 400, False),
        (9, 400, False),
        (5, 404, False),
        (12, 501, False),
        (8, 429, True),
        (14, 503, True),
        (13, 500, True),
        (2, 500, True),
        (15, 500, True),
        (4, 504, True),
    ],
)
def test_a_grpc_code_is_told_as_the_http_status_that_fits(
    code: int, status: int, retryable: bool
) -> None:
    error = of_code(code)
    assert (error.status_code, error.retryable) == (status, retryable)


@pytest.mark.parametrize("code", [1, 4, 10, 11])
def test_a_code_that_ends_a_healthy_session_is_retryable_on_any_other(code: int) -> None:
    """The framework makes every 4xx but 408, 429 and 499 final, so they need another status."""
    assert code in errors.ROTATION_CODES
    error = of_code(code)
    assert error.retryable
    assert error.status_code == 499 or error.status_code >= 500


def test_no_other_code_is_a_rotation() -> None:
    assert set(errors.ROTATION_CODES) == {1, 4, 10, 11}


@pytest.mark.parametrize("code", [None, 0, 6, 17, -1, 399, 600, 10**30])
def test_a_code_that_nobody_knows_is_a_fault_of_the_service(code: int | None) -> None:
    error = of_code(code)
    assert (error.status_code, error.retryable) == (500, True)
    assert "so it is" in error.message


@pytest.mark.parametrize("code", sorted(errors.GRPC_STATUS))
def test_the_framework_keeps_what_the_table_says(code: int) -> None:
    row = errors.GRPC_STATUS[code]
    error = of_code(code)
    assert (error.status_code, error.retryable) == (row.http, row.retryable)
    assert row.name in error.message


@pytest.mark.parametrize(
    ("given", "status", "retryable"),
    [(404, 404, False), (401, 401, False), (429, 429, True), (503, 503, True), (501, 501, False)]
    + [(405, 405, False), (410, 410, False), (408, 408, True), (499, 499, True)]
    + [(None, 500, True), (0, 500, True), (200, 500, True), (-5, 500, True), (10**40, 500, True)],
)
def test_an_http_status_without_a_code(given: int | None, status: int, retryable: bool) -> None:
    error = errors.from_service(ServiceError(None, given, "so it is"), redact)
    assert (error.status_code, error.retryable) == (status, retryable)


def test_the_code_counts_for_more_than_the_status_beside_it() -> None:
    """The gateway tells OUT_OF_RANGE as HTTP 400, which the framework would make final."""
    error = errors.from_service(ServiceError(11, 400, "over its limit"), redact)
    assert error.retryable


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        ("Not Found", 404),
        ({"code": 5, "message": "Not Found", "details": []}, 404),
        ({"error": {"grpcCode": 16, "httpCode": 401, "message": "no"}}, 401),
        ({"error": "no", "message": "no", "code": 14, "details": []}, 503),
        ({"result": {"error": {"code": 8, "message": "no"}}}, 429),
        # A gateway in front of it, with HTTP's statuses.
        ({"code": 401, "message": "Unauthorized"}, 401),
        ({"error": {"code": 503, "message": "busy"}}, 503),
        ({"code": 99, "message": "?"}, 500),
    ],
)
def test_from_the_frame_to_the_exception(frame: object, status: int) -> None:
    response = decode(frame if isinstance(frame, str) else json.dumps(frame))
    assert response is not None and response.error is not None
    assert errors.from_service(response.error, redact).status_code == status


# -- the handshake -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 426, 501])
def test_a_refused_handshake_fails_at_once(status: int) -> None:
    error = errors.from_handshake(status)
    assert (error.status_code, error.retryable) == (status, False)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_handshake_that_can_go_better_is_retried(status: int) -> None:
    error = errors.from_handshake(status)
    assert (error.status_code, error.retryable) == (status, True)


@pytest.mark.parametrize("status", [200, 204, 405, 410, 426])
def test_an_answer_that_a_websocket_never_gives_is_not_from_the_service(status: int) -> None:
    error = errors.from_handshake(status)
    assert not error.retryable
    assert "not Tiro's service; check base_url" in error.message


def test_a_proxy_can_refuse_the_handshake_too() -> None:
    """Without TLS it is asked for the address itself, and its answer looks like the service's."""
    assert errors.from_handshake(407).message == errors.from_proxy(407).message


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "SOCKS4://proxy", "socks5h://proxy"])
def test_a_proxy_that_speaks_socks_is_named(proxy: str) -> None:
    error = errors.socks(proxy, "tiro.is:443")
    assert error is not None
    assert "tiro.is:443: the proxy on the way speaks SOCKS" in error.message
    assert "HTTPS_PROXY" in error.message


@pytest.mark.parametrize("proxy", [None, "", "http://127.0.0.1:3128", "http://socks:1080"])
def test_any_other_proxy_is_none_of_socks(proxy: str | None) -> None:
    assert errors.socks(proxy, "tiro.is:443") is None


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308])
def test_a_redirect_is_refused_by_name(status: int) -> None:
    error = errors.from_handshake(status)
    assert (error.status_code, error.retryable) == (status, False)
    assert "redirects to another" in error.message


@pytest.mark.parametrize(("status", "retryable"), [(407, False), (403, False), (502, True)])
def test_a_proxy_that_lets_nothing_through(status: int, retryable: bool) -> None:
    error = errors.from_proxy(status)
    assert (error.status_code, error.retryable) == (status, retryable)


def test_what_a_retry_can_not_mend_is_not_retried() -> None:
    for error in (errors.unusable_session("it is closed"), errors.closed_while_recognizing()):
        assert type(error) is APIConnectionError
        assert not error.retryable
    for slow in (errors.unresponsive(15), errors.drain_timeout(5)):
        assert type(slow) is APITimeoutError
        assert slow.retryable
    assert errors.never_answered().retryable


# -- what the message says -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (of_code(16), ["api_key", "TIRO_API_KEY", "TIRO_SPEECH_KEY"]),
        (of_code(7), ["key", "ask Tiro"]),
        (of_code(3), ["options", "tiro.STT"]),
        (of_code(9), ["options", "tiro.STT"]),
        (of_code(5), ["base_url", "TIRO_BASE_URL"]),
        (of_code(12), ["base_url", "TIRO_BASE_URL"]),
        (of_code(8), ["quota", "wait"]),
        (of_code(14), ["try again"]),
        (of_code(None), ["try again"]),
        (errors.from_handshake(401), ["TIRO_API_KEY", "TIRO_SPEECH_KEY"]),
        (errors.from_handshake(404), ["base_url", "TIRO_BASE_URL"]),
        (errors.from_handshake(503), ["try again"]),
        (errors.unreachable("host:1", "refused"), ["host:1", "refused", "network", "base_url"]),
        (errors.connect_timeout("host:1", 2.5), ["host:1", "2.5 s", "network", "base_url"]),
        (errors.connect_timeout("host:1", 2.5, 50), ["network", "is 50:", "http_session"]),
        (errors.dropped("before it said anything"), ["before it said anything", "try again"]),
        (errors.never_answered(), ["before it said anything", "api_key", "base_url", "proxies"]),
        (errors.unresponsive(16.4), ["16 s", "try again"]),
        (errors.drain_timeout(5), ["5 s", "end of the audio", "try again"]),
        (errors.closed_while_recognizing(), ["closed", "recognize()"]),
        (errors.unusable_session("it is closed"), ["http_session", "it is closed", "event loop"]),
        (errors.from_proxy(407), ["proxy", "407", "HTTPS_PROXY", "ALL_PROXY", "password"]),
        (
            errors.unreachable("host:1", "gone", by_proxy=True, named="ALL_PROXY names p:1"),
            ["host:1: gone. Check the proxy: ALL_PROXY names p:1. Hosts in NO_PROXY"],
        ),
        (errors.from_handshake(302), ["redirects", "302", "not followed", "base_url"]),
        (errors.as_api_error(KeyError(KEY)), ["KeyError", "report"]),
    ],
)
def test_every_message_says_what_to_do(error: APIError, told: list[str]) -> None:
    for part in told:
        assert part in error.message
    assert error.message.endswith(".")


def test_the_reason_of_the_service_is_told() -> None:
    assert "UNAUTHENTICATED: the key is no good" in of_code(16, "the key is no good").message
    assert "no reason given" in of_code(13, "").message


ODD = " Its path is /v2/[key], where Tiro's own address has /v2beta1."


def test_an_address_at_which_nothing_is_has_its_path_told() -> None:
    by_frame = errors.from_service(ServiceError(5, odd_path=f"/v2/{KEY}"), redact)
    by_status = errors.from_handshake(404, "/v2/[key]")
    for error in (by_frame, by_status):
        assert error.message.endswith(f"Check base_url or TIRO_BASE_URL.{ODD}")
    for error in (of_code(5), errors.from_handshake(404), errors.from_handshake(401, "/v2")):
        assert "path" not in error.message


def test_field_violations_are_part_of_the_message() -> None:
    violations = ("config: not good", "config.language_code: Unsupported value xx-XX")
    error = errors.from_service(ServiceError(3, 400, "not valid", violations), redact)
    assert (
        "not valid; config: not good; config.language_code: Unsupported value xx-XX"
        in error.message
    )
    without = errors.from_service(ServiceError(3, 400, "", violations), redact)
    assert "INVALID_ARGUMENT: config: not good; config.language_code" in without.message


def test_a_message_has_an_end() -> None:
    many = tuple(f"field{i}: no" for i in range(10_000))
    for error in (ServiceError(3, None, "no " * 10_000), ServiceError(3, None, "no", many)):
        assert len(errors.from_service(error, redact).message) < 1000


# -- classes -------------------------------------------------------------------------------------

ALL = [
    of_code(16),
    errors.from_handshake(401),
    errors.unreachable("host", "reason"),
    errors.connect_timeout("host", 10),
    errors.dropped("early"),
    errors.drain_timeout(5),
    errors.as_api_error(ValueError("x")),
]


def test_the_classes() -> None:
    assert [type(error) for error in ALL] == [
        APIStatusError,
        APIStatusError,
        APIConnectionError,
        APITimeoutError,
        APIConnectionError,
        APITimeoutError,
        APIConnectionError,
    ]
    assert all(error.retryable for error in ALL[2:])


def test_no_error_has_a_past() -> None:
    """S2: the framework prints the root of the chain, which can hold the URL."""
    for error in ALL:
        assert error.__cause__ is None
        assert error.__context__ is None
        assert error.body is None


def test_the_text_of_a_foreign_exception_is_not_told() -> None:
    error = errors.as_api_error(RuntimeError(f"wss://host/?token={KEY}"))
    for form in (str(error), repr(error), str(error.args)):
        assert "RuntimeError" in form
        assert KEY not in form


def test_a_fault_of_our_own_is_told_with_its_lines() -> None:
    """Whoever is asked to report it has nothing else."""
    try:
        decode(cast("Any", 5))
    except TypeError as fault:
        message = errors.as_api_error(fault).message
    assert re.search(r"unexpected TypeError .* \(.*protocol\.py line \d+, test_errors\.py", message)
    assert "Please report it" in message


# -- redaction -----------------------------------------------------------------------------------

QUOTED = quote(KEY, safe="")


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"no model for {KEY}!",
        f"{KEY}{KEY}",
        QUOTED,
        quote(KEY),
        f"GET /v2beta1/speech:streamingrecognize?token={QUOTED}&x=1",
        f"Authorization: Bearer {QUOTED}",
    ],
)
def test_the_key_is_taken_out(text: str) -> None:
    clean = redact(text)
    for secret in (KEY, QUOTED, quote(KEY), "lykill"):
        assert secret not in clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/x?token=abc123&y=2", "/x?token=[...]&y=2"),
        ("/x?y=2&TOKEN=abc123", "/x?y=2&TOKEN=[...]"),
        ("/x?access_token=abc123;y", "/x?access_token=[...];y"),
        ("api_key=abc123, key=def456", "api_key=[...], key=[...]"),
        ('{"url":"/x?token=abc123"}', '{"url":"/x?token=[...]"}'),
        ("Authorization: Bearer abc.123-x", "Authorization: Bearer [...]"),
        ("bearer  abc123 was refused", "bearer  [...] was refused"),
    ],
)
def test_other_credentials_are_taken_out(text: str, clean: str) -> None:
    assert redact(text) == clean


def test_what_is_no_secret_stays() -> None:
    text = "no model for language code 'xx-XX' (þ, ð, æ, ö); tokens: 3"
    assert redact(text) == text


def test_the_key_is_taken_out_of_message_and_violations() -> None:
    said = ServiceError(16, 401, f"{KEY} is no key", (f"token: {KEY} expired", f"x?token={QUOTED}"))
    error = errors.from_service(said, redact)
    for form in (str(error), repr(error), error.message):
        assert "lykill" not in form
    assert "[key] is no key; token: [key] expired" in error.message


def test_a_key_across_the_end_of_a_long_text_is_taken_out() -> None:
    for length in range(480, 505):
        clean = redact("x" * length + KEY)
        assert "lyk" not in clean


@pytest.mark.parametrize(
    "part", ["token=", "bearer ", "key", "a-", " ", KEY[:-1], quote(KEY[:-1], safe="")]
)
def test_redaction_takes_no_longer_than_a_text_is_long(part: str) -> None:
    """A frame can have 4 MiB, and the text of the server is not to be trusted."""

    def seconds(length: int) -> float:
        text = part * (length // len(part))
        # Of the thread, as the machine may be busy; the least, as its caches may be cold.
        taken = []
        for _ in range(3):
            started = time.thread_time()
            redact(text)
            taken.append(time.thread_time() - started)
        return min(taken)

    # It takes 8 times as long; a search that starts again at each place would take 64 times.
    assert seconds(80_000) < 24 * seconds(10_000)


HARD_KEY = "a,b\"c'd e%f&g<h>\\i\u00f0\U0001f389"
HARD_FORMS = {
    "plain": HARD_KEY,
    "url": quote(HARD_KEY, safe=""),
    "url in lower case": quote(HARD_KEY, safe="").lower(),
    "url twice": quote(quote(HARD_KEY, safe=""), safe=""),
    "form": quote_plus(HARD_KEY),
    "json": json.dumps(HARD_KEY)[1:-1],
    "json as it is": json.dumps(HARD_KEY, ensure_ascii=False)[1:-1],
    "html": html.escape(HARD_KEY),
    "html numbers": "".join(f"&#{ord(c)};" for c in HARD_KEY),
    "html hex": "".join(f"&#x{ord(c):X};" for c in HARD_KEY),
    "repr": repr(HARD_KEY)[1:-1],
    "base64": base64.b64encode(HARD_KEY.encode()).decode(),
    "base64 for urls": base64.urlsafe_b64encode(HARD_KEY.encode()).decode().rstrip("="),
}


@pytest.mark.parametrize("form", HARD_FORMS)
def test_a_key_of_any_characters_is_taken_out(form: str) -> None:
    text = HARD_FORMS[form]
    clean = Redactor(HARD_KEY)(f"before {text} after")
    assert clean.startswith("before [key]")
    assert clean.endswith(" after")
    assert len(clean) <= len("before [key] after") + 2, "what fills base64 up may stay"


def test_a_key_is_not_shown_by_who_looks_for_it() -> None:
    held = Redactor(KEY)
    held("x")
    assert "lykill" not in repr(held)
    assert "lykill" not in repr([vars(secret) for known in held._known for secret in known])


def test_a_long_key_that_is_told_in_part_takes_no_time() -> None:
    """As services do: "no such key: abcdef..."."""
    key = "0123456789abcdefABCDEF-+/=" * 4
    started = time.thread_time()
    for text in (key[:-1], quote(key[:-1], safe=""), key[:-1] * 1000):
        assert Redactor(key)(f"no such key: {text}...").startswith("no such key: ")
    # A pattern that can be read in two ways never ends.
    assert time.thread_time() - started < 10


def test_a_signed_token_takes_no_time() -> None:
    """Tokens of a thousand characters, a new one for each connection: all are looked for."""
    tokens = [f"{n}{'0123456789abcdefABCDEF-_.' * 40}" for n in range(20)]
    redact = Redactor()
    started = time.perf_counter()
    for token in tokens:
        redact.learn(token)
    clean = redact(f"{tokens[-1]} {quote(tokens[-2])} {tokens[-1][:700]} {tokens[0]}")
    assert time.perf_counter() - started < 1
    assert clean.startswith("[key] [key] [key] 00123"), "and the earliest are forgotten"


def test_a_redactor_that_knows_nothing_changes_nothing() -> None:
    assert Redactor()("so it is") == Redactor("")("so it is") == "so it is"
    assert Redactor(lambda: KEY)(KEY) == KEY, "it was not asked"


@pytest.mark.parametrize(
    ("key", "text", "clean"),
    [
        ("a", "a language that was not a match", "[key] language that was not [key] match"),
        ("e", "no model: e", "no model: [key]"),
        ("test", "the latest test is no test-key", "the latest [key] is no [key]-key"),
        ("ab", 'key "ab", Authorization: Basic ab', 'key "[key]", Authorization: Basic [key]'),
        ("ab", "/x?token=ab&y=ab HTTP", "/x?token=[...]&y=[key] HTTP"),
        ("ab", "/x%3Ftoken%3Dab%26y=cab", "/x%3Ftoken%3D[key]%26y=cab"),
        ("ab", "Bearer abc, api_key=cab", "Bearer [...], api_key=[...]"),
        ("+1", "token is %2B1, &#43;1 or +1; 2+1", "token is [key], [key] or [key]; 2+1"),
        ("a", "Basic YQ== and YQs", "Basic [key]== and YQs"),
    ],
)
def test_a_key_that_is_no_more_than_a_letter_ruins_no_text(key: str, text: str, clean: str) -> None:
    """As people take for a server of their own: "test", "x"."""
    assert Redactor(key)(text) == clean


def test_a_key_of_six_characters_is_one_wherever_it_stands() -> None:
    assert Redactor("abcdef")("xabcdefx") == "x[key]x"
    assert Redactor("abcde")("xabcdex abcde") == "xabcdex [key]"


def test_short_values_of_headers_are_no_secrets() -> None:
    held = Redactor("lykill")
    held.learn("annar", ["1", "is-IS", "langt gildi"])
    assert held("lykill annar 1 is-IS langt gildi") == "[key] [key] 1 is-IS [key]"


def as_key(text: str) -> str:
    """Return a text without control characters, as keys are, and as long as they are at least."""
    return "".join(each for each in text if unicodedata.category(each) != "Cc").ljust(6, "þ")


@examples(40)
@given(any_texts(max_size=30).map(as_key), st.data())
def test_no_key_survives_in_no_form(key: str, data: st.DataObject) -> None:
    assume("[key]" not in key and "[...]" not in key)
    forms = [key, quote(key), quote(key, safe="")]
    text = "".join(
        data.draw(st.lists(st.sampled_from([*forms, " og ", "&", "?x="]), min_size=1, max_size=6))
    )
    clean = Redactor(key)(text)
    for part in (" og ", "&", "?x=", "[key]", "[...]", "…"):
        clean = clean.replace(part, "\0")
    assert not any(form in clean for form in forms)


def test_a_connection_that_is_not_made_names_what_may_be_in_the_way() -> None:
    assert "host:1: refused" in errors.unreachable("host:1", "refused").message
    assert "it is closed" in errors.unusable_session("it is closed").message
    assert "early" in errors.dropped("early").message
    for limit, told in ((0, False), (50, True)):
        message = errors.connect_timeout("host:1", 2.5, limit).message
        assert "within 2.5 s" in message
        assert ("limit of connections is 50" in message) is told
