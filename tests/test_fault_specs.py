"""Faults as text, as `serve --fault` takes them."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from typer.testing import CliRunner

from livekit.plugins.tiro.cli import app
from livekit.plugins.tiro.cli.exits import Exit
from livekit.plugins.tiro.testing import (
    ConnectionRecord,
    Hooks,
    describe_faults,
    faults,
    parse_faults,
)

F, M = faults, faults.Moment


def attributes(fault: Any) -> dict[str, Any]:
    """All there is to a fault; those within it are taken apart too."""
    if isinstance(fault, list | tuple):
        return {str(n): attributes(each) for n, each in enumerate(fault)}
    if not isinstance(fault, Hooks):
        return {"": fault}
    parts = {name: attributes(value) for name, value in vars(fault).items()}
    return {"type": type(fault), **parts}


def test_the_first_connection_is_1_as_text_and_0_in_its_record() -> None:
    """As the record says of itself."""
    hooks = parse_faults(["refuse:503@1"])
    first, second = (ConnectionRecord(number, "/", None, 0.0) for number in (0, 1))
    assert [type(each) for each in _parts(hooks.for_connection(first))] == [F.Refuse]
    assert _parts(hooks.for_connection(second)) == []
    told = inspect.getdoc(ConnectionRecord) or ""
    assert "number: Counts the connections of a server from 0: the one of number 0 is `@1`" in told


def _parts(hooks: Any) -> list[Hooks]:
    return list(hooks._hooks)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("disconnect", F.Disconnect()),
        ("disconnect:", F.Disconnect()),
        ("disconnect:2.5", F.Disconnect(2.5)),
        ("disconnect:when=final,reset", F.Disconnect(M.FINAL, reset=True)),
        ("disconnect:reset,end", F.Disconnect(M.END, reset=True)),
        ("disconnect:reset=false", F.Disconnect()),
        ("fail:14,final", F.Fail(14, M.FINAL)),
        ("fail:shape=gateway v1,code=8,stay", F.Fail(8, shape="gateway v1", stay=True)),
        ("close:opened,4000,see you@home", F.Close(M.OPENED, 4000, "see you@home")),
        ("refuse:429,delay=0.5", F.Refuse(429, delay=0.5)),
        ("session-limit:30", F.SessionLimit(30)),
        ("session-limit:30,none", F.SessionLimit(30, None)),
        ("delay:1,false", F.Delay(1, finals=False)),
        ("drift:-0.01", F.Drift(-0.01)),
        ("half-open:3", F.HalfOpen(3)),
        ("reset-handshake", F.ResetHandshake()),
        ("garbage", F.Garbage()),
    ],
)
def test_a_fault_as_text(spec: str, fault: Hooks) -> None:
    expected = F.PerConnection(then=F.Combined(fault))
    assert attributes(parse_faults([spec])) == attributes(expected)


def test_faults_of_single_connections() -> None:
    specs = ["delay:1", "refuse:503@1", "mute@3", "drift:0.5", "reset-handshake@3"]
    always = F.Delay(1), F.Drift(0.5)
    expected = F.PerConnection(
        F.Combined(*always, F.Refuse(503)),
        F.Combined(*always),
        F.Combined(*always, F.Mute(), F.ResetHandshake()),
        then=F.Combined(*always),
    )
    assert attributes(parse_faults(specs)) == attributes(expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "drop:after=2.5",
            r"no fault 'drop'; there are close, delay, .*, stop-reading",
        ),
        ("", "no fault ''; there are close"),
        ("Disconnect", "no fault 'Disconnect'; there are close"),
        ("moment", "no fault 'moment'; there are close"),
        ("fault", "no fault 'fault'; there are close"),
        ("disconnect:after=2.5", "no setting for 'after=2.5'; there are when, reset"),
        ("disconnect:1,true,2", "no setting for '2'; there are when, reset"),
        ("garbage:frames=x", "no setting for 'frames=x'; it has none"),
        ("disconnect:1,when=2", "when is set twice"),
        ("disconnect:soon", "when is one of opened, config, .* or a number, not 'soon'"),
        ("disconnect:nan", "when is one of opened, config, .* or a number, not 'nan'"),
        ("fail:1.5", "code is a whole number, not '1.5'"),
        ("fail:shape=v3", "shape is one of v1, v2, gateway v1, .*, not 'v3'"),
        ("delay:1,finals=no", "finals is true or false, not 'no'"),
        ("idle-limit:1,some", "code is a whole number or none, not 'some'"),
        ("delay", "seconds is missing"),
        # What the fault itself refuses, in its words.
        ("fail:503", "code must be a whole number from 1 to 99, not 503"),
        ("close:final,70000", "code must be a whole number from 0 to 65535, not 70000"),
        ("disconnect:-1", "when must be seconds of audio, 0 or more, or one of"),
        ("drift:-1", "rate must be a number above -1"),
        *(
            (spec, "after @ comes the number of one connection, from 1 to 1000")
            for spec in (
                "refuse@0",
                "refuse@99999",
                "refuse@" + "9" * 5000,
                "refuse@",
                "mute@x",
                "mute@1@2",
                "disconnect:x@y",
                "disconnect:2.5@-1",
                "disconnect:2.5@",
                "disconnect:2.5@1.5",
                "disconnect:2.5@1@2",
                "disconnect:reset@x",
                "fail:14@1-3",
                "garbage:@x",
            )
        ),
        ("disconnect:2,5@1", "not '5'; numbers are written with a point, 2.5$"),
        ("disconnect:when=2,5", "not '5'; numbers are written with a point, 2.5$"),
        ("delay:0,5@x", "not '5@x'; numbers are written with a point, 0.5$"),
        ("drift:-0,01", "no setting for '01'; .* with a point, -0.01$"),
    ],
)
def test_a_text_that_is_no_fault(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_faults(["reset-handshake", spec])
    assert re.split("[:@]", spec)[0] in str(caught.value)
    result = CliRunner().invoke(app, ["serve", "--fault", spec])
    assert result.exit_code == Exit.USAGE
    assert result.stderr == f"error: {caught.value}\n"


def test_a_text_instead_of_a_list_of_faults() -> None:
    with pytest.raises(ValueError, match=r"a list of texts, such as \['mute'\]"):
        parse_faults("mute")


def test_faults_are_listed() -> None:
    """All of them, each as it can be written with its defaults, and nothing is served then."""
    result = CliRunner().invoke(app, ["serve", "--fault", "help"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == describe_faults()
    listed = [line for line in result.stdout.split("\n\n", 1)[1].splitlines() if line[:1].isalpha()]
    for line in listed:
        name = line.partition(":")[0]
        fault = _alone(re.sub("[A-Z]+", "1", line))
        assert type(fault) is F.CATALOGUE[name]
        needs = name if ":" not in line or "=" in line.split(",")[0] else f"{name}:1"
        assert attributes(fault) == attributes(_alone(needs))
    assert [line.partition(":")[0] for line in listed] == sorted(F.CATALOGUE)


def test_the_list_says_what_its_settings_mean() -> None:
    usage, *listed = "\n".join(describe_faults()).split("\n\n")
    assert "@N strikes connection N alone" in usage and "without it every connection" in usage
    for moment in M:
        assert f"    {moment.name.lower():8}{moment.value}" in usage
    for text in listed:
        spec, about, *told = text.splitlines()
        settings = re.findall(r"[:,](\w+)", spec)
        assert all(line.endswith(".") for line in told), "whole sentences"
        assert about.startswith("    ") and about.endswith(".")
        assert [line.strip().partition(": ")[0] for line in told] == [
            name.lower() for name in settings if name != "when"
        ]
    lines = describe_faults()
    assert "session-limit:SECONDS,code=11" in lines
    assert "fail:code=14,when=config,message=a fault,shape=v1,stay=false" in lines
    assert any(
        line.endswith("one of v1, v2, gateway v1, gateway v2, result, text.") for line in lines
    )
    assert "None" not in "\n".join(lines)


def test_every_fault_is_in_the_catalogue() -> None:
    """What a user can give to `TiroServer` by its class, `serve` takes by its name."""
    classes = (each for each in vars(F).values() if isinstance(each, type))
    hooks = {each for each in classes if issubclass(each, Hooks) and each.__module__ == F.__name__}
    assert hooks - set(F.CATALOGUE.values()) == {F.Fault, F.PerConnection, F.Combined}


def _alone(spec: str) -> Hooks:
    """The fault that a text stands for, without what gives it to each connection."""
    hooks = parse_faults([spec])
    assert isinstance(hooks, F.PerConnection)
    together = hooks._then
    assert isinstance(together, F.Combined)
    return together._hooks[0]
