"""What a user can set: every bad value fails at once, and the key is shown nowhere."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import re
import traceback
from functools import partial
from typing import Any

import pytest
from hypothesis import given, strategies as st

from livekit.agents import LanguageCode
from livekit.plugins import tiro
from livekit.plugins.tiro.options import (
    DEFAULT_BASE_URL,
    Key,
    Options,
    changed_options,
    wire_language,
)

from .support.examples import examples
from .support.texts import any_texts

KEY = "lykill-0123456789"


def options(**changes: Any) -> Options:
    return Options(api_key=KEY, **changes)


# -- language ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_tag", "wire"),
    [
        ("is-IS", "is-IS"),
        ("is", "is-IS"),
        ("IS", "is-IS"),
        ("is-is", "is-IS"),
        ("is_IS", "is-IS"),
        ("isl", "is-IS"),
        ("ice", "is-IS"),
        ("icelandic", "is-IS"),
        ("Icelandic", "is-IS"),
        ("íslenska", "is-IS"),
        ("  is  ", "is-IS"),
        ("en_us", "en-US"),
        ("EN-us", "en-US"),
        ("en", "en"),
        ("fo-FO", "fo-FO"),
        ("eng", "eng"),
        (LanguageCode("english"), "en"),
        ("sr-latn-rs", "sr-Latn-RS"),
        ("ZH_HANT_TW", "zh-Hant-TW"),
    ],
)
def test_a_language_is_brought_to_the_form_of_the_wire(given_tag: str, wire: str) -> None:
    assert wire_language(given_tag) == wire
    assert options(language=given_tag).language == wire


@pytest.mark.parametrize(
    "tag",
    ["is-IS-x-exp", "is-is-x-Exp", "is-IS-X-EXP", "is_IS_x_Exp"]
    + ["is-x-radiology-ct", "is-x-a", "is-x-" + "a" * 16, "is-IS-x-radiology-ct-2"],
)
def test_a_tag_with_a_private_part_goes_out_letter_by_letter(tag: str) -> None:
    assert options(language=tag).language == tag


@pytest.mark.parametrize(
    "value",
    ["", " ", "i", "is-", "-is", "is--IS", "is IS", "is-IS\n-x", "123", "þý-IS", "x-exp", "is.IS"]
    + ["is-x", "is-x-", "is-x-" + "a" * 17, "is-x-a-x-", "is-x-é"]
    # In Unicode, these are an i, an s and a k of the other case.
    + ["a\u0131", "i\u017f-IS", "\u212aa", "is-x-\u212a"]
    + ["english", "English", "english-US", "auto", "multi", "icelandic-IS", "engl-x-exp"]
    + ["a" * 9, "is-" + "a" * 9, None, 7, True, b"is", ["is"]],
)
def test_what_is_no_language_tag_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="language must be a BCP-47 tag"):
        options(language=value)


TAG_LIKE = st.lists(
    st.sampled_from(["is", "IS", "x", "exp", "Latn", "1", "þ", "a" * 16]), max_size=5
)


@examples(60)
@given(any_texts(max_size=8) | TAG_LIKE.map("-".join) | TAG_LIKE.map("_".join))
def test_wire_language_is_a_tag_or_a_value_error(text: str) -> None:
    try:
        tag = wire_language(text)
    except ValueError:
        return
    assert re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,16})*", tag)
    assert wire_language(tag) == tag


# -- numbers and flags ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("max_alternatives", [1, 2, 30]),
        ("sample_rate", [None, 8000, 16000, 22050, 44100, 48000]),
        ("interim_results", [True, False]),
        ("punctuate", [True, False]),
        ("diarization", [True, False]),
    ],
)
def test_good_values_are_taken_as_they_are(name: str, good: list[Any]) -> None:
    assert [getattr(options(**{name: value}), name) for value in good] == good


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("max_alternatives", [0, -1, 31, 1.0, "1", None, True, math.nan]),
        ("sample_rate", [0, -16000, 7999, 48001, 16000.0, "16000", True]),
        ("interim_results", [None, 0, 1, "yes", "false"]),
        ("punctuate", [None, 0, 1, "yes", "false"]),
        ("diarization", [None, 0, 1, "yes", "false"]),
    ],
)
def test_bad_values_are_refused_by_name(name: str, bad: list[Any]) -> None:
    for value in bad:
        with pytest.raises(ValueError, match=f"^{name} must be"):
            options(**{name: value})


def test_the_number_of_speakers() -> None:
    both = options(diarization=True, min_speakers=2, max_speakers=2)
    assert (both.min_speakers, both.max_speakers) == (2, 2)
    assert options(diarization=True, max_speakers=1).min_speakers is None
    for name in ("min_speakers", "max_speakers"):
        for value in (0, -1, 1.5, "2", True):
            with pytest.raises(ValueError, match=f"{name} must be a whole number"):
                options(diarization=True, **{name: value})
        with pytest.raises(ValueError, match=f"{name} needs diarization=True"):
            options(**{name: 2})
    with pytest.raises(ValueError, match=r"min_speakers \(3\) must not exceed max_speakers \(2\)"):
        options(diarization=True, min_speakers=3, max_speakers=2)


# -- address -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("wss://host/v2beta1", "wss://host/v2beta1"),
        ("wss://host/v2beta1/", "wss://host/v2beta1"),
        ("https://host/v2beta1", "wss://host/v2beta1"),
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080"),
        ("ws://127.0.0.1:8080", "ws://127.0.0.1:8080"),
        ("HTTPS://Host/Path", "wss://Host/Path"),
        (" wss://host/a/b \n", "wss://host/a/b"),
        ("ws://[::1]:8080/v1", "ws://[::1]:8080/v1"),
        ("wss://host/v2beta1/speech:streamingrecognize", "wss://host/v2beta1"),
        ("wss://host/v2beta1/speech:streamingrecognize/", "wss://host/v2beta1"),
    ],
)
def test_the_address_of_the_method(base_url: str, url: str) -> None:
    assert options(base_url=base_url).url == url + "/speech:streamingrecognize"


@pytest.mark.parametrize(
    ("base_url", "odd"),
    [
        (DEFAULT_BASE_URL, ""),
        ("ws://host/v2beta1/", ""),
        ("ws://host/v2beta1/speech:streamingrecognize", ""),
        ("ws://host", "/"),
        ("ws://host/", "/"),
        ("ws://host/v2/speech:streamingrecognize", "/v2"),
        ("ws://host/v2beta1/v2", "/v2beta1/v2"),
    ],
)
def test_a_path_that_is_not_tiros_own(base_url: str, odd: str) -> None:
    assert options(base_url=base_url).odd_path == odd


def test_the_default_address_is_the_documented_one() -> None:
    assert options().url == "wss://speech.talgreinir.is/v2beta1/speech:streamingrecognize"
    assert options().host == "speech.talgreinir.is"


def test_the_host_is_fit_for_messages() -> None:
    assert options(base_url="http://127.0.0.1:8080/some/path").host == "127.0.0.1:8080"


@pytest.mark.parametrize(
    "base_url",
    ["host", "host:8080/path", "ftp://host", "wss://", "wss:///path", "//host", "wss://[::1"]
    + ["wss://a b/", "wss://ö..x/", f"wss://{64 * 'a'}.is/", "wss:// /", None, 7],
)
def test_what_is_no_address_is_refused(base_url: Any) -> None:
    with pytest.raises(ValueError, match="base_url must be a ws"):
        options(base_url=base_url)


def test_an_address_in_quotation_marks_is_told_of_them() -> None:
    for quoted in ('"wss://host"', "'wss://host'"):
        with pytest.raises(ValueError, match="base_url must not be in quotation marks"):
            options(base_url=quoted)


@pytest.mark.parametrize(
    "base_url",
    ["wss://host:99999", "ws://host:abc/", "ws://host:0", "ws://host:-1", "ws://[::1]:x"]
    + ["ws://user:SECRET"],
)
def test_a_port_that_can_not_be_is_named_as_what_is_wrong(base_url: str) -> None:
    with pytest.raises(ValueError, match="^base_url must have a port from 1 to 65535") as raised:
        options(base_url=base_url)
    assert "SECRET" not in str(raised.value) and "user" not in str(raised.value)


@pytest.mark.parametrize(
    "base_url",
    [
        "wss://host/v2beta1?token=SECRET",
        "wss://host/v2beta1#SECRET",
        "wss://SECRET@host/",
        "wss://user:SECRET@host/",
        "wss://:SECRET@host/",
        "wss://user:SECRET@host:abc/",
    ],
)
def test_an_address_with_a_secret_in_it_is_refused_and_not_repeated(base_url: str) -> None:
    with pytest.raises(ValueError, match="pass the key as api_key") as raised:
        options(base_url=base_url)
    assert "SECRET" not in str(raised.value)


def test_a_broken_address_is_not_repeated_either() -> None:
    with pytest.raises(ValueError) as raised:
        options(base_url="speech.talgreinir.is?token=SECRET")
    assert "SECRET" not in repr(raised.value)


# -- extra_config --------------------------------------------------------------------------------


def test_extra_config_is_out_of_reach_of_the_caller() -> None:
    mine: dict[str, Any] = {"metadata": {"topics": ["veður"]}}
    held = options(extra_config=mine)
    mine["metadata"]["topics"].append("fréttir")
    mine["model"] = "other"
    assert held.extra_config == {"metadata": {"topics": ["veður"]}}


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("encoding", "16-bit"),
        ("sampleRateHertz", "give sample_rate"),
        ("sample_rate_hertz", "give sample_rate"),
        ("languageCode", "give language"),
        ("language_code", "give language"),
        ("audioChannelCount", "one channel"),
        ("audio_channel_count", "one channel"),
    ],
)
def test_extra_config_must_agree_with_the_audio_and_the_events(name: str, advice: str) -> None:
    with pytest.raises(ValueError, match=f"extra_config must not set {name}: .*{advice}"):
        options(extra_config={name: 1, "model": "m"})


def test_extra_config_must_be_json() -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    bad = [[], [("model", "m")], "model", 7, {"a": {1}}, {"a": b"x"}, {"a": math.nan}]
    for value in [*bad, {"a": math.inf}, {"a": "\ud800"}, {"a": object()}, endless, {"a": deep}]:
        with pytest.raises(ValueError, match="extra_config must be a mapping that JSON can hold"):
            options(extra_config=value)


# -- the object ----------------------------------------------------------------------------------


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        options().language = "en-US"  # type: ignore[misc]


def test_replace_validates_again() -> None:
    changed = dataclasses.replace(options(extra_config={"model": "m"}), language="en_us")
    assert (changed.language, changed.extra_config) == ("en-US", {"model": "m"})
    with pytest.raises(ValueError, match="max_alternatives"):
        dataclasses.replace(changed, max_alternatives=31)
    with pytest.raises(ValueError, match="needs diarization"):
        dataclasses.replace(changed, min_speakers=2)


def test_changed_options_are_a_copy() -> None:
    before = options()
    assert changed_options(before, {}) == before
    assert changed_options(before, {"punctuate": False}) == options(punctuate=False)
    with pytest.raises(ValueError, match="punctuate"):
        changed_options(before, {"punctuate": "no"})


def test_equal_settings_are_equal() -> None:
    assert options(language="is") == options(language="is-IS")
    assert options() != options(punctuate=False)
    assert options() != dataclasses.replace(options(), api_key="other")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *((value, "not be empty") for value in ("", "  ", "\n")),
        *((value, "be one line without control") for value in ("a\nb", "a\x00b", "a\ud800")),
        *((value, "not be in quotation marks") for value in (f'"{KEY}"', f" '{KEY}'\n")),
    ],
)
def test_a_key_that_can_be_none_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"api_key must {said}"):
        Options(api_key=value)


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "None"), (7, "int"), (KEY.encode(), "bytes"), ([KEY], "list")]
)
def test_a_key_that_is_no_text_is_named_by_its_type(value: Any, kind: str) -> None:
    said = f"api_key must be a str, or a function that returns one, not {kind}: give the key as"
    stt = tiro.STT(api_key="test")
    for refusing in (Options, stt.update_options):
        with pytest.raises(ValueError, match=said) as raised:
            refusing(api_key=value)
        assert KEY not in str(raised.value)


@pytest.mark.parametrize("secret", [KEY.encode(), [KEY], {"X-Tenant": KEY.encode()}])
def test_no_frame_shows_a_key_that_is_no_text(secret: Any) -> None:
    stt = tiro.STT(api_key="test")
    for refusing in (tiro.STT, stt.update_options):
        with pytest.raises(ValueError) as raised:
            if isinstance(secret, dict):
                refusing(api_key="test", extra_headers=secret)
            else:
                refusing(api_key=secret)
        for frame, _ in list(traceback.walk_tb(raised.value.__traceback__))[1:]:
            assert KEY not in repr(frame.f_locals)


def test_white_space_around_the_key_is_not_of_the_key() -> None:
    assert Options(api_key=f" {KEY}\r\n").api_key == KEY


def test_a_key_hides_itself() -> None:
    """A traceback with locals shows the repr of each."""
    key = Key(KEY)
    assert repr(key) == "'***'"
    assert KEY not in f"{key!r} {[key]} {(key, {key})}"
    assert key == KEY and str(key) == KEY, "it is sent as it is"
    assert isinstance(options().api_key, Key)
    assert repr(pickle.loads(pickle.dumps(key))) == "'***'"
    assert repr(copy.deepcopy(key)) == "'***'"
    assert isinstance(tiro.STT(api_key=KEY)._options.api_key, Key)


@pytest.mark.parametrize("bad", [{"language": "?"}, {"max_alternatives": 99}, {"punctuate": 1}])
def test_no_frame_of_a_refusal_shows_the_key(
    bad: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generated `__init__` holds all arguments."""
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    for make in (lambda: tiro.STT(**bad), lambda: changed_options(tiro.STT()._options, bad)):
        with pytest.raises(ValueError) as raised:
            make()
        for frame, _ in traceback.walk_tb(raised.value.__traceback__):
            assert KEY not in repr(frame.f_locals)


def test_the_key_is_not_shown() -> None:
    held = options(language="is-IS-x-exp")
    assert KEY not in repr(held)
    assert KEY not in str(held)
    assert KEY not in f"{held.url} {held.host}"
    assert KEY not in repr(tiro.STT(api_key=KEY))
    assert pickle.loads(pickle.dumps(held)) == held


# -- a function for keys, headers ------------------------------------------------------------------


def test_a_function_for_keys_hides_itself() -> None:
    """The `repr` of a partial function shows what it is called with."""
    held = options_of(partial(str, KEY))
    assert KEY not in f"{held!r} {held.api_key!r} {vars(held)}"
    assert held == options_of(partial_of := held.api_key) and held.api_key is partial_of
    assert held != options_of(partial(str, KEY)), "equal functions are the same function"
    assert len({held.api_key, options_of(partial_of).api_key}) == 1


def options_of(api_key: Any) -> Options:
    return Options(api_key=api_key)


@pytest.mark.parametrize(
    "headers",
    [
        "X-Tenant: a",
        [("X-Tenant", KEY)],
        {"": KEY},
        {f"X-Tenant: {KEY}": "a"},
        {7: KEY},
        {"X-Tenant": f"{KEY}\r\nX-Other: b"},
        {"X-Tenant": None},
        {"X-Tenant": KEY.encode()},
        {"Upgrade": "h2c"},
        {"sec-websocket-key": KEY},
    ],
)
def test_bad_headers_are_refused_without_their_values(headers: Any) -> None:
    with pytest.raises(ValueError, match="extra_headers must") as raised:
        tiro.STT(api_key="test", extra_headers=headers)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5, "a str for each name, not int: give that of X-Tenant as text, or leave it out"),
        (None, "a str for each name, not None: give that of X-Tenant as text, or leave it out"),
        ("a\nb", "values of one line, without control characters: see that of X-Tenant"),
    ],
)
def test_a_bad_value_of_a_header_is_named_with_what_to_do(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^extra_headers must have {said}$"):
        options(extra_headers={"X-Tenant": value})


@pytest.mark.parametrize("value", ["", "a", f"Bearer {KEY}", " blank ", "þorn"])
def test_good_headers_are_hidden(value: str) -> None:
    held = options(extra_headers={"X-Tenant": value})
    assert held.extra_headers == {"X-Tenant": value.strip()}
    assert repr(held.extra_headers) == "{'X-Tenant': '***'}"


@pytest.mark.parametrize("bad", [{"language": "?"}, {"extra_headers": {"X": "a\nb"}}])
def test_no_frame_of_a_refused_setting_shows_a_secret(bad: dict[str, Any]) -> None:
    settings = {"api_key": partial(str, KEY), "extra_headers": {"X-Tenant": KEY}, **bad}
    stt = tiro.STT(api_key="test")
    for refusing in (tiro.STT, stt.update_options):
        with pytest.raises(ValueError) as raised:
            refusing(**settings)
        for frame, _ in list(traceback.walk_tb(raised.value.__traceback__))[1:]:
            assert KEY not in repr(frame.f_locals)


@pytest.mark.parametrize(
    ("name", "value"), [("extra_config", {"model": "m"}), ("extra_headers", {"X-Tenant": "a"})]
)
def test_none_is_no_fields_and_no_headers(name: str, value: dict[str, str]) -> None:
    stt = tiro.STT(api_key="test", **{name: None})  # type: ignore[arg-type]
    assert getattr(stt._options, name) == {}
    changes: dict[str, Any] = {name: value}
    stt.update_options(**changes)
    assert getattr(stt._options, name) == value
    stt.update_options(**{**changes, name: None})
    assert getattr(stt._options, name) == {}


# -- words to listen for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "sent"),
    [
        (None, []),
        ([], []),
        (["Eyjafjallajökull", "Hekla"], ["Eyjafjallajökull", "Hekla"]),
        (("Hekla", " Hekla ", "Hekla"), ["Hekla"]),
        (["Jón  Jónsson\n", "e\u0301"], ["Jón Jónsson", "é"]),
        (iter(["Hekla"]), ["Hekla"]),
    ],
)
def test_the_words_to_listen_for_are_sent_once_each(terms: Any, sent: list[str]) -> None:
    assert options(keyterms=terms).phrases == sent


@pytest.mark.parametrize(
    "terms", ["Hekla", b"Hekla", {"Hekla": 1}, 7, [""], [" "], [None], [7], ["a\x00"], ["\ud800"]]
)
def test_what_can_be_no_word_to_listen_for_is_refused(terms: Any) -> None:
    with pytest.raises(ValueError, match="keyterms must be"):
        options(keyterms=terms)


@pytest.mark.parametrize("field", ["speechContexts", "speech_contexts"])
def test_words_to_listen_for_come_one_way_only(field: str) -> None:
    extra = {field: [{"phrases": ["Hekla"]}]}
    assert options(extra_config=extra).extra_config == extra
    with pytest.raises(ValueError, match="keyterms or the speechContexts"):
        options(extra_config=extra, keyterms=[])


def test_the_words_to_listen_for_are_not_shown() -> None:
    """They are the caller's vocabulary: names of his customers."""
    held = options(keyterms=["Hekla"], session_keyterms=("Katla",))
    assert "Hekla" not in repr(held) and "Katla" not in repr(held)


# -- through the constructor of the STT ----------------------------------------------------------


def key_of(stt: tiro.STT) -> str:
    return stt._options.key


def test_the_key_is_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIRO_SPEECH_KEY", "speech")
    assert key_of(tiro.STT()) == "speech"
    monkeypatch.setenv("TIRO_API_KEY", "api")
    assert key_of(tiro.STT()) == "api"
    assert key_of(tiro.STT(api_key="argument")) == "argument"
    assert key_of(tiro.STT(api_key=None)) == "api"  # type: ignore[arg-type]
    monkeypatch.setenv("TIRO_API_KEY", "")
    assert key_of(tiro.STT()) == "speech"


def test_a_missing_key_names_both_variables() -> None:
    with pytest.raises(ValueError, match=r"TIRO_API_KEY.*TIRO_SPEECH_KEY"):
        tiro.STT()


def test_the_address_is_the_argument_then_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tiro.STT(api_key=KEY)._options.base_url == DEFAULT_BASE_URL
    monkeypatch.setenv("TIRO_BASE_URL", "http://from-environment/v9")
    assert tiro.STT(api_key=KEY)._options.base_url == "ws://from-environment/v9"
    assert tiro.STT(api_key=KEY, base_url="ws://mine")._options.base_url == "ws://mine"
    monkeypatch.setenv("TIRO_BASE_URL", "")
    assert tiro.STT(api_key=KEY)._options.base_url == DEFAULT_BASE_URL
    monkeypatch.setenv("TIRO_BASE_URL", "ws://from-environment")
    stt = tiro.STT(api_key=KEY, base_url=None)  # type: ignore[arg-type]
    assert stt._options.base_url == "ws://from-environment"


@pytest.mark.parametrize("empty", ["", " \n"])
@pytest.mark.parametrize("name", ["base_url", "api_key"])
def test_what_is_given_empty_is_not_looked_for_elsewhere(
    monkeypatch: pytest.MonkeyPatch, name: str, empty: str
) -> None:
    """A variable that is not set, in the program that gives it: to go elsewhere would surprise."""
    monkeypatch.setenv("TIRO_API_KEY", KEY)
    monkeypatch.setenv("TIRO_BASE_URL", "ws://from-environment")
    given_empty: dict[str, Any] = {name: empty}
    with pytest.raises(ValueError, match=f"^{name} must not be empty: give .* leave {name} out$"):
        tiro.STT(**given_empty)


def test_every_setting_reaches_the_options() -> None:
    settings: dict[str, Any] = {
        "language": "en-US",
        "interim_results": False,
        "punctuate": False,
        "max_alternatives": 3,
        "sample_rate": 24000,
        "diarization": True,
        "min_speakers": 1,
        "max_speakers": 4,
        "extra_config": {"model": "m"},
        "endpointing": 0.5,
        "api_key": KEY,
        "base_url": "ws://mine",
        "extra_headers": {"X-Tenant": "a"},
        "keyterms": ("Eyjafjallajökull",),
    }
    stt = tiro.STT(**settings)
    assert dataclasses.asdict(stt._options) == {**settings, "session_keyterms": ()}


@pytest.mark.parametrize(
    "setting",
    [
        {"language": "not a tag"},
        {"max_alternatives": 31},
        {"sample_rate": 96000},
        {"min_speakers": 2},
        {"base_url": "nonsense"},
        {"extra_config": {"encoding": "FLAC"}},
    ],
)
def test_a_bad_setting_fails_at_construction(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        tiro.STT(api_key=KEY, **setting)


def test_a_bad_update_changes_nothing() -> None:
    stt = tiro.STT(api_key=KEY)
    before = stt._options
    with pytest.raises(ValueError, match="max_alternatives"):
        stt.update_options(language="en-US", max_alternatives=31)
    assert stt._options == before
    stt.update_options(language="en-US")
    assert stt.model == "en-US"
