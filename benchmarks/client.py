"""The process that is measured: one target, one command at a time.

`python -m benchmarks.client TARGET PORTS` reads commands from standard input, JSON a line, and
answers each with a line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
from typing import Any


def _import_times(target: str) -> dict[str, float]:
    """Import the target, as long as nothing is imported yet. Return ms over `livekit.agents`."""
    if target == "floor-json":
        return {}
    import livekit.agents  # noqa: F401

    if target == "lk-null":
        return {}
    # Collecting what the framework left takes 80 ms, and comes when it comes.
    gc.disable()
    began = time.perf_counter()
    __import__(f"livekit.plugins.{target}")
    took = time.perf_counter() - began
    gc.enable()
    return {"import_ms": took * 1000}


async def _run(target: str, ports: dict[str, str], command: dict[str, Any]) -> dict[str, Any]:
    from .load import Load, measure
    from .world import World

    world = World(ports, f"{target}-{command['id']}")
    arguments = command.get("arguments", {})
    if command["experiment"] == "load":
        return await measure(world, target, Load(**arguments))
    from . import calls, growth, turns

    (experiment,) = [
        getattr(module, command["experiment"])
        for module in (calls, growth, turns)
        if hasattr(module, command["experiment"])
    ]
    result: dict[str, Any] = await experiment(world, target, **arguments)
    return result


def main() -> None:
    target, ports = sys.argv[1], json.loads(sys.argv[2])
    imported = _import_times(target)
    logging.disable(logging.CRITICAL)
    print(json.dumps(imported), flush=True)
    for line in sys.stdin:
        answer = asyncio.run(_run(target, ports, json.loads(line)))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
