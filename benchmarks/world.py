"""Where a measurement happens: the addresses of the fake services, and what both sides share."""

from __future__ import annotations

import ssl
import statistics
import wave
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

# The number of the first block of numbered audio: no quieter than speech can be.
FIRST_NUMBER = 400
_SPEECH = Path(__file__).parent.parent / "tests" / "data" / "is.wav"
# s of the file between which its first sentence is.
_START, _END = 0.6, 2.8
# Frames from one soft one to the next: 0.4 s at 50 ms.
_SYLLABLE = 8
# Samples of 10 ms at 16 kHz, which carry one number.
BLOCK = 160


class World:
    """The way to the fake services."""

    def __init__(self, ports: dict[str, str], name: str) -> None:
        """Remember where they are.

        Args:
            ports: What the services said when they were ready.
            name: Sets the runs of this process apart from those of others.
        """
        self.tiro_url = ports["tiro"]
        """The base URL of the package's own local server."""
        self._ports = ports
        self._name = name
        self._runs = count()

    def url(self, run: str, *, tls: bool = False) -> str:
        """Return the address under which the streams of a run find their services."""
        return f"https://{self._ports['tls']}/{run}" if tls else f"{self._plain}/{run}"

    @property
    def _plain(self) -> str:
        return f"http://{self._ports['plain']}"

    @asynccontextmanager
    async def http(self, *, tls: bool = False) -> AsyncIterator[aiohttp.ClientSession]:
        """Open an HTTP session without a limit of connections, for all streams of a process."""
        context = ssl.create_default_context(cafile=self._ports["certificate"]) if tls else True
        connector = aiohttp.TCPConnector(limit=0, ssl=context)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield session

    async def plan(self, **plan: Any) -> str:
        """Tell the services what to expect of a new run. Return its name."""
        run = f"{self._name}-{next(self._runs)}"
        async with self.http() as session:
            async with session.post(f"{self._plain}/plan/{run}", json=plan) as response:
                response.raise_for_status()
        return run

    async def report(self, run: str) -> list[dict[str, Any]]:
        """Return what the services noted of a run, one item a connection."""
        async with self.http() as session:
            async with session.get(f"{self._plain}/report/{run}") as response:
                peers: list[dict[str, Any]] = await response.json()
                return peers


def syllables(samples: int) -> list[bytes]:
    """Return frames of 16-bit noise: some loud ones and a soft one, which repeated pass for speech.

    Noise that is always as loud would pass for noise that nobody speaks over.
    """
    generator = np.random.default_rng(5)
    peaks = (*[8000] * (_SYLLABLE - 1), 80)
    return [generator.integers(-peak, peak, samples, np.int16).tobytes() for peak in peaks]


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the ordered values lie."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Iterable[float]) -> float:
    """Return the median of one value or more."""
    return statistics.median(values)


def numbered(blocks: int) -> bytes:
    """Return audio of 16 kHz in which each 10 ms carry a number, loudly enough to be speech."""
    numbers = np.arange(FIRST_NUMBER, FIRST_NUMBER + blocks, dtype=np.int16)
    return np.repeat(numbers, BLOCK).tobytes()


def utterance(rate: int) -> npt.NDArray[np.int16]:
    """Return a spoken sentence: 16-bit samples at `rate` Hz."""
    with wave.open(str(_SPEECH)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        own = file.getframerate()
    pcm = pcm[round(_START * own) : round(_END * own)]
    at = np.arange(round(len(pcm) * rate / own)) * own / rate
    speech: npt.NDArray[np.int16] = np.interp(at, np.arange(len(pcm)), pcm).astype(np.int16)
    return speech
