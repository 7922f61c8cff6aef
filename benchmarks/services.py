"""The fake services, in a process of their own: they take audio and say phrases on schedule.

`python -m benchmarks.services` prints one line of JSON with its ports and serves until its
standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import trustme
from aiohttp import WSMsgType, web

from livekit.plugins.tiro.testing import TiroServer

from . import traffic
from .traffic import Phrase
from .world import BLOCK

# s between hypotheses, and s of an utterance, which ends in a final.
INTERIM_EVERY = 0.35
FINAL_EVERY = 3.0
# s of silence that end speech.
ENDPOINT = 0.5
# Connections whose messages are noted one by one: enough for the age of the audio.
NOTED = 20


@dataclass(frozen=True)
class Plan:
    """What the connections of a run are to expect."""

    rate: int = 16000
    """Hz of the audio on the wire."""
    by: str = "clock"
    """Whether phrases come by the `clock`, or by the `audio` heard."""
    finals: bool = True
    drop_at: float = 0.0
    """s of audio at which the first connection of a stream is cut; 0 for never."""
    burst_at: float = 0.0
    """s of audio at which `burst` finals are said at once; 0 for never."""
    burst: int = 0
    words: int = 10
    phase: float = 0.0
    """s by which the schedule is ahead."""
    final_every: float = FINAL_EVERY
    """s of an utterance."""
    by_voice: bool = False
    """Whether phrases come only while somebody speaks, and a last one, a final, after that."""


@dataclass
class Peer:
    """A connection, and what was heard on it."""

    index: int
    opened_at: float = field(default_factory=time.monotonic)
    pcm_bytes: int = 0
    messages: int = 0
    phrases: int = 0
    first_audio_at: float = 0.0
    dropped_at: float = 0.0
    final_until: float = 0.0
    """s of audio that a final covers."""
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When each message came, and how many bytes of samples had come by then."""
    blocks: list[int] = field(default_factory=list)
    """The numbers of the 10 ms blocks that came whole; for the reconnect test."""


class Dialogue:
    """One connection's conversation."""

    def __init__(self, service: str, plan: Plan, peer: Peer, ws: web.WebSocketResponse) -> None:
        self._service = service
        self._plan = plan
        self._peer = peer
        self._ws = ws
        self._pcm = bytearray()
        self._phase = plan.phase
        if plan.by == "clock":
            # Streams are out of step, as calls are.
            self._phase = (peer.index * 0.618) % 1 * plan.final_every
        self._said = int(self._phase / INTERIM_EVERY)
        self._talking: asyncio.Task[None] | None = None
        self._voice_at = 0.0
        self._is_open = False

    async def run(self) -> None:
        try:
            # A client may go in the middle of a phrase.
            with suppress(ConnectionError):
                await self._listen()
        finally:
            if self._talking is not None:
                self._talking.cancel()
            self._peer.blocks = _whole_blocks(self._pcm)

    async def _listen(self) -> None:
        async for message in self._ws:
            is_text = message.type is WSMsgType.TEXT
            content = traffic.audio(self._service, message.data, is_text=is_text)
            if content:
                await self._hear(content, is_text)
            if self._peer.dropped_at:
                return

    @property
    def _heard(self) -> float:
        return self._peer.pcm_bytes / 2 / self._plan.rate

    async def _hear(self, content: bytes, is_text: bool) -> None:
        peer, plan = self._peer, self._plan
        now = time.monotonic()
        peer.pcm_bytes += traffic.pcm_size(content, is_text=is_text)
        peer.messages += 1
        if plan.by_voice and traffic.is_loud(content, is_text=is_text):
            self._voice_at = now
        peer.first_audio_at = peer.first_audio_at or now
        if peer.index < NOTED:
            peer.arrivals.append((now, peer.pcm_bytes))
        if plan.drop_at:
            self._pcm += traffic.pcm(content, is_text=is_text)
            if self._heard >= plan.drop_at:
                return self._drop()
        if plan.burst_at:
            if self._heard > plan.burst_at:
                await self._burst()
        elif plan.by == "audio":
            await self._catch_up(self._heard + self._phase)
        elif self._talking is None:
            self._talking = asyncio.create_task(self._by_clock())

    def _drop(self) -> None:
        """End the connection without a word, as when a line breaks."""
        assert self._ws._req is not None and self._ws._req.transport is not None
        self._peer.dropped_at = time.monotonic()
        self._ws._req.transport.abort()

    async def _by_clock(self) -> None:
        began = time.monotonic() - self._phase
        while True:
            self._said += 1
            await asyncio.sleep(max(0.0, began + self._due() - time.monotonic()))
            with suppress(ConnectionError):
                if not self._plan.by_voice or time.monotonic() - self._voice_at < ENDPOINT:
                    await self._say(final=self._is_final())
                elif self._is_open:
                    await self._say(final=True)

    async def _catch_up(self, until: float) -> None:
        while True:
            self._said += 1
            if self._due() > until:
                self._said -= 1
                return
            await self._say(final=self._is_final())

    def _due(self) -> float:
        """Return when the next phrase is due: hypotheses, the last of which comes as the final."""
        every = self._plan.final_every
        utterance, place = divmod(self._said - 1, self._per_utterance)
        return utterance * every + min(every, (place + 1) * INTERIM_EVERY)

    @property
    def _per_utterance(self) -> int:
        return int(self._plan.final_every / INTERIM_EVERY) + 1

    def _is_final(self) -> bool:
        return self._said % self._per_utterance == 0 and self._plan.finals

    async def _say(self, *, final: bool) -> None:
        peer = self._peer
        self._is_open = not final
        end = max(self._heard, peer.final_until + 0.001)
        await self._utter(Phrase(peer.phrases, peer.final_until, end, final, self._plan.words))
        if final:
            peer.final_until = end

    async def _burst(self) -> None:
        """Say finals that share out the audio heard so far."""
        for number in range(self._plan.burst):
            start = self._plan.burst_at * number / self._plan.burst
            end = self._plan.burst_at * (number + 1) / self._plan.burst
            await self._utter(Phrase(number, start, end, True, self._plan.words))

    async def _utter(self, phrase: Phrase) -> None:
        self._peer.phrases += 1
        await self._ws.send_str(traffic.say(self._service, phrase))


def _whole_blocks(pcm: bytearray) -> list[int]:
    """Return the numbers of the blocks that came whole: every sample of a block is its number."""
    if not pcm:
        return []
    counts = np.bincount(np.abs(np.frombuffer(pcm, np.int16).astype(np.int32)))
    return [int(number) for number in np.flatnonzero(counts >= BLOCK)]


class Services:
    """The web application: plans in, conversations, reports out."""

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}
        self._peers: dict[str, list[Peer]] = {}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**20)
        app.router.add_post("/plan/{run}", self._take_plan)
        app.router.add_get("/report/{run}", self._report)
        app.router.add_post("/{run}/{index}/gladia", self._open_gladia)
        app.router.add_get("/{run}/{index}/{service}{rest:.*}", self._converse)
        return app

    async def _take_plan(self, request: web.Request) -> web.Response:
        self._plans[request.match_info["run"]] = Plan(**await request.json())
        self._peers[request.match_info["run"]] = []
        return web.Response()

    async def _report(self, request: web.Request) -> web.Response:
        peers = self._peers[request.match_info["run"]]
        return web.json_response([asdict(peer) for peer in peers])

    async def _open_gladia(self, request: web.Request) -> web.Response:
        scheme = "wss" if request.secure else "ws"
        url = f"{scheme}://{request.host}{request.path}/live"
        return web.json_response({"id": "bench", "url": url}, status=201)

    async def _converse(self, request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=2**26, decode_text=False)
        with suppress(ConnectionError):
            await ws.prepare(request)
        run, service = request.match_info["run"], request.match_info["service"].split("/")[0]
        peer = Peer(int(request.match_info["index"]))
        plan = self._plans[run]
        if any(earlier.index == peer.index for earlier in self._peers[run]):
            # Only the first connection of a stream is cut; what comes on others is noted.
            plan = Plan(**{**asdict(plan), "drop_at": plan.drop_at and float("inf")})
        self._peers[run].append(peer)
        await Dialogue(service, plan, peer, ws).run()
        return ws


async def serve() -> None:
    """Serve until standard input ends."""
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(Services().app(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        authority = trustme.CA()
        with tempfile.NamedTemporaryFile(suffix=".pem", delete=False) as file:
            file.write(authority.cert_pem.bytes())
        stack.callback(Path(file.name).unlink)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        tiro = await stack.enter_async_context(TiroServer(api_key=None))
        plain, secure = (address[1] for address in runner.addresses)
        ready = {
            "plain": f"127.0.0.1:{plain}",
            "tls": f"127.0.0.1:{secure}",
            "tiro": tiro.base_url,
            "certificate": file.name,
        }
        print(json.dumps(ready), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(serve())
