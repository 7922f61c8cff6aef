"""Malformed frames, through the whole receiving side: `python -m tests.fuzz`.

They are made from the recordings. With atheris (extra `fuzz`) they are bred for the code that they
reach; without it they are drawn from a seed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

WIRE = Path(__file__).parent / "data" / "wire"
INPUTS = 1_000_000
# Frames in an input at most, and bytes in an input.
MOST_FRAMES = 4
_MOST_BYTES = 4096
# Values that no field expects; as JSON text, since Python would not write some of them so.
_ODD = tuple(
    b'null true false 0 -1 1.5 1e999 -1e999 NaN 1e30 99999999999999999999 16 "" "a" "\\ud800" '
    b'"\\u0000" "e\\u0301" "0s" "-1s" "0.5s" "nans" "infs" "1e9s" "Not_Found" [] {} [[]] [{}] '
    b'[null] {"":null}'.split()
)
NAMES = (
    "result results alternatives words word transcript isFinal is_final startTime endTime "
    "start_time end_time confidence speakerTag code message error details fieldViolations "
    "field description grpcCode httpCode"
).split()


@cache
def corpus() -> list[bytes]:
    """The frames of the service in the recordings, each once."""
    texts = set()
    for path in WIRE.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            if event["ev"] == "recv" and len(event["text"]) < _MOST_BYTES:
                texts.add(event["text"].encode())
    return sorted(texts)


def frames_of(data: bytes) -> list[bytes]:
    """An input's frames: its lines."""
    return data.split(b"\n")[:MOST_FRAMES]


def mutated(data: bytes, chance: Random) -> bytes:
    """Change an input a little, as JSON where it is some, or as bytes."""
    frames = frames_of(data)
    at = chance.randrange(len(frames))
    if len(frames) < MOST_FRAMES and chance.random() < 0.2:
        frames.insert(at, chance.choice(corpus()))
    for _ in range(chance.randint(1, 3)):
        change = _mutated_bytes if chance.random() < 0.3 else _mutated_json
        frames[at] = change(frames[at], chance).replace(b"\n", b" ")
    return b"\n".join(frames)


def _mutated_bytes(frame: bytes, chance: Random) -> bytes:
    start = chance.randint(0, len(frame))
    end = min(len(frame), start + chance.choice([0, 0, 1, 1, 4, len(frame)]))
    return frame[:start] + chance.randbytes(chance.choice([0, 1, 1, 2, 8])) + frame[end:]


def _mutated_json(frame: bytes, chance: Random) -> bytes:
    try:
        document = json.loads(frame)
    except (ValueError, RecursionError):
        return _mutated_bytes(frame, chance)
    places: list[tuple[Any, Any]] = []
    _collect(document, places)
    if not places:
        return chance.choice(_ODD)
    holder, key = chance.choice(places)
    action = chance.randrange(5)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[chance.choice(NAMES)] = holder.pop(key)
    elif action == 2:
        other, name = chance.choice(places)
        # A copy, made by way of text: no tree may contain itself.
        holder[key] = json.loads(json.dumps(other[name]))
    elif action == 3:
        for _ in range(chance.choice([1, 2, 1000])):
            holder[key] = [holder[key]]
    else:
        holder[key] = json.loads(chance.choice(_ODD))
    try:
        return json.dumps(document, ensure_ascii=chance.random() < 0.5).encode("utf-8", "replace")
    except RecursionError:
        return b"[" * 100_000


def _collect(node: Any, places: list[tuple[Any, Any]]) -> None:
    """Note each place in a document: the container, and the key in it."""
    pending = [node]
    while pending:
        holder = pending.pop()
        if isinstance(holder, dict):
            entries = list(holder.items())
        elif isinstance(holder, list):
            entries = list(enumerate(holder))
        else:
            continue
        places += [(holder, key) for key, _ in entries]
        pending += [value for _, value in entries]


class Campaign:
    """Counts inputs, and reports at the end what was found."""

    def __init__(self, inputs: int, seed: int, way: str) -> None:
        self._receiver = importlib.import_module("tests.support.receiver").Receiver
        self._inputs, self._seed, self._way = inputs, seed, way
        self._done = self.frames = self.understood = 0
        self._started = time.perf_counter()

    def check(self, data: bytes) -> None:
        """Check an input; the last one ends the campaign.

        Raises:
            AssertionError: A promise was broken.
        """
        frames = frames_of(data)
        receiver = self._receiver()
        try:
            receiver.check(frames)
        except Exception:
            print(f"after {self._done} inputs, seed {self._seed}: {frames!r}", file=sys.stderr)
            raise
        self._done += 1
        self.frames += len(frames)
        self.understood += receiver.understood - len(frames)

    @property
    def is_over(self) -> bool:
        return self._done >= self._inputs

    def __str__(self) -> str:
        seconds = time.perf_counter() - self._started
        return (
            f"{self._way}, seed {self._seed}: {self._done} inputs of {self.frames} frames in "
            f"{seconds:.0f} s, {self.understood} of them understood; "
            "no exception, and no good final lost"
        )


def draw(campaign: Campaign, seed: int) -> None:
    """Draw inputs from a seed, each a change of an earlier one or of a recording."""
    chance = Random(seed)
    pool = list(corpus())
    while not campaign.is_over:
        data = mutated(chance.choice(pool), chance)[:_MOST_BYTES]
        campaign.check(data)
        if chance.random() < 0.05:
            again = data if chance.random() < 0.9 else chance.choice(corpus())
            pool[chance.randrange(len(pool))] = again


def breed(inputs: int, seed: int) -> None:
    """Breed inputs for the code that they reach. Ends the process."""
    import atheris

    # Loaded first, so that its hundreds of modules are not instrumented.
    importlib.import_module("livekit.agents")
    with atheris.instrument_imports(include=["livekit.plugins.tiro"]):
        campaign = Campaign(inputs, seed, "atheris")

    def check(data: bytes) -> None:
        campaign.check(data)
        if campaign.is_over:
            # The fuzzer itself never returns.
            print(campaign, flush=True)
            shutil.rmtree(folder)
            os._exit(0)

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        chance = Random(seed)
        if chance.random() < 0.3:
            return bytes(atheris.Mutate(data, max_size))
        return mutated(data, chance)[:max_size]

    folder = tempfile.mkdtemp()
    for number, frame in enumerate(corpus()):
        Path(folder, str(number)).write_bytes(frame)
    # libFuzzer takes 0 for "none given".
    arguments = [f"-seed={seed + 1}", f"-max_len={_MOST_BYTES}", "-verbosity=0", folder]
    atheris.Setup([sys.argv[0], *arguments], check, custom_mutator=change)
    atheris.Fuzz()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", action="store_true", help="do without atheris")
    options = parser.parse_args(arguments)
    if not options.draw:
        try:
            breed(options.inputs, options.seed)
        except ModuleNotFoundError:
            print("atheris is not installed (extra fuzz): inputs are drawn", file=sys.stderr)
    campaign = Campaign(options.inputs, options.seed, "drawn")
    draw(campaign, options.seed)
    print(campaign)


if __name__ == "__main__":
    main()
