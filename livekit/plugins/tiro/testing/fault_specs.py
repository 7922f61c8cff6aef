"""Faults as text, for the command line: `disconnect:2.5`, `fail:14,when=final@1`."""

from __future__ import annotations

import inspect
import math
import re
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from . import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .hooks import Hooks

_USAGE = """\
NAME:SETTINGS@N, such as disconnect:2.5@1 or fail:14,when=final; @N strikes connection N alone (the
first is 1), without it every connection has the fault. Settings are given in order or by name; what
is in CAPITALS has to be, all else is as below. `when` is seconds of audio on the connection, or:
"""
_SPEC = re.compile(
    r"(?P<name>[^:@]+)(?::(?P<settings>.*?))?(?:@(?P<connection>[0-9]{1,9}))?", re.DOTALL
)
# The connections that can have a fault of their own.
MOST_CONNECTIONS = 1000
_OF_CONNECTIONS = f"after @ comes the number of one connection, from 1 to {MOST_CONNECTIONS}"


def parse_faults(specs: Sequence[str]) -> Hooks:
    """Read faults, for the argument `hooks` of `TiroServer`.

    A fault goes by its name in `faults.CATALOGUE`, such as `half-open` for `HalfOpen`.
    After a colon come its settings with commas between, in order or by name. A moment is written
    in small letters, or is a number of seconds; what is on or off is put on by its name alone:
    `disconnect:2.5`, `disconnect:when=final,reset`. All connections have all the faults, but for
    those followed by `@` and the number of a connection: `refuse:503@1` refuses the first only.

    Raises:
        ValueError: There is no such fault, or a setting is none of its, or this is no list.
    """
    if isinstance(specs, str):
        raise ValueError(f"the faults are to be a list of texts, such as [{specs!r}]")
    everywhere: list[Hooks] = []
    alone: dict[int, list[Hooks]] = {}
    for spec in specs:
        hooks, connection = _parse(spec)
        (everywhere if connection is None else alone.setdefault(connection, [])).append(hooks)
    turns = range(1, max(alone, default=0) + 1)
    first = [faults.Combined(*everywhere, *alone.get(turn, ())) for turn in turns]
    return faults.PerConnection(*first, then=faults.Combined(*everywhere))


def describe_faults() -> list[str]:
    """Return lines on how a fault is written, and on each: its settings, and what it does.

    A setting has its default; one that has to be given is in capitals.
    """
    lines = _USAGE.splitlines()
    lines += [f"    {name:8}{moment.value}" for name, moment in _MOMENTS.items()]
    for name, fault in sorted(faults.CATALOGUE.items()):
        defaults = _defaults(fault)
        settings = [key.upper() if value is None else f"{key}={value}" for key, value in defaults]
        about = (inspect.getdoc(fault) or "").splitlines()[0]
        lines += ["", ":".join(filter(None, (name, ",".join(settings)))), f"    {about}"]
        told = _told(fault)
        lines += [f"    {key}: {told[key]}" for key, _ in defaults if key != "when"]
    return lines


def _defaults(fault: type[Hooks]) -> list[tuple[str, str | None]]:
    """Return a fault's settings, each with its default as text; None if it has no default."""
    parameters = inspect.signature(fault).parameters
    return [(name, _written(parameters[name])) for name in _settings(fault)]


def _written(parameter: inspect.Parameter) -> str | None:
    """Return a default as text."""
    if parameter.default is parameter.empty:
        return None
    if isinstance(parameter.default, faults.Moment):
        return parameter.default.name.lower()
    text = str(parameter.default)
    return text.lower() if isinstance(parameter.default, bool) else text.removesuffix(".0")


def _told(fault: type[Hooks]) -> dict[str, str]:
    """Return what a fault's docstring says of each setting, in the words of the command line."""
    _, _, arguments = (inspect.getdoc(fault) or "").partition("\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", arguments, re.MULTILINE)
    told = {name: " ".join(text.split()) for name, text in found}
    for name, annotation in _settings(fault).items():
        for kind in _kinds(annotation):
            if get_origin(kind) is Literal:
                told[name] = f"{told[name].rstrip('.')}: {_one_of(get_args(kind))}."
    return {name: text.replace("None", "none") for name, text in told.items()}


def _parse(spec: str) -> tuple[Hooks, int | None]:
    """Return a fault and the number of the connection that has it, None for every connection."""
    match = _SPEC.fullmatch(spec)
    if match is None and spec.partition("@")[0] in faults.CATALOGUE:
        raise ValueError(f"fault {spec!r}: {_OF_CONNECTIONS}")
    if match is None or match["name"] not in faults.CATALOGUE:
        name, known = match["name"] if match else spec, sorted(faults.CATALOGUE)
        raise ValueError(f"there is no fault {name!r}; there are {', '.join(known)}")
    try:
        fault = _make(faults.CATALOGUE[match["name"]], (match["settings"] or "").split(","))
        return fault, _connection(match["connection"])
    except ValueError as error:
        raise ValueError(f"fault {spec!r}: {error}") from None


def _connection(text: str | None) -> int | None:
    if text is None:
        return None
    if not 1 <= int(text) <= MOST_CONNECTIONS:
        raise ValueError(_OF_CONNECTIONS)
    return int(text)


def _make(fault: type[Hooks], parts: Sequence[str]) -> Hooks:
    given: dict[str, Any] = {}
    before = ""
    for part in filter(None, parts):
        try:
            name, value = _setting(fault, given, part)
        except ValueError as error:
            raise ValueError(f"{error}{_hint(before, part)}") from None
        given[name] = value
        before = part
    for name, parameter in inspect.signature(fault).parameters.items():
        if parameter.default is parameter.empty and name not in given:
            raise ValueError(f"{name} is missing")
    return fault(**given)


def _setting(fault: type[Hooks], given: Mapping[str, Any], part: str) -> tuple[str, Any]:
    """Return a setting's name and value; a value alone is for the first setting not given yet."""
    settings = _settings(fault)
    name, equals, text = part.partition("=")
    if not equals and settings.get(name) is bool:
        text = "true"
    elif not equals:
        name, text = next((each for each in settings if each not in given), ""), part
    if name not in settings:
        has = f"there are {', '.join(settings)}" if settings else "it has none"
        raise ValueError(f"no setting for {part!r}; {has}")
    if name in given:
        raise ValueError(f"{name} is set twice")
    return name, _value(name, settings[name], text)


def _hint(before: str, part: str) -> str:
    """Return a hint at what an unreadable part, with the one before it, may have meant."""
    digits, at, _ = part.partition("@")
    whole = before.rpartition("=")[2]
    if re.fullmatch(r"[-+]?[0-9]+", whole) and re.fullmatch(r"[0-9]+", digits):
        return f"; numbers are written with a point, {whole}.{digits}"
    return f"; {_OF_CONNECTIONS}" if at else ""


def _settings(fault: type[Hooks]) -> dict[str, Any]:
    """Return the settings of a fault that can be written as text, in order, with their types."""
    parameters = inspect.signature(fault, eval_str=True).parameters.values()
    return {
        each.name: each.annotation
        for each in parameters
        if all(kind in _READERS or get_origin(kind) is Literal for kind in _kinds(each.annotation))
    }


def _kinds(annotation: Any) -> Sequence[Any]:
    """Return the members of a union, else the type itself."""
    union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if union else (annotation,)


def _value(name: str, annotation: Any, text: str) -> Any:
    """Return the value that a text stands for."""
    wanted = []
    for kind in _kinds(annotation):
        if get_origin(kind) is Literal:
            if text in get_args(kind):
                return text
            wanted.append(_one_of(get_args(kind)))
            continue
        description, read = _READERS[kind]
        try:
            return read(text)
        except (KeyError, ValueError):
            wanted.append(description)
    raise ValueError(f"{name} is {' or '.join(wanted)}, not {text!r}")


def _one_of(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}"


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


_MOMENTS = {moment.name.lower(): moment for moment in faults.Moment}

# How the value of a type is written, in words, and what reads it.
_READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    bool: ("true or false", {"true": True, "false": False}.__getitem__),
    int: ("a whole number", int),
    float: ("a number", _number),
    str: ("a text", str),
    NoneType: ("none", {"none": None}.__getitem__),
    faults.Moment: (_one_of(list(_MOMENTS)), _MOMENTS.__getitem__),
}
