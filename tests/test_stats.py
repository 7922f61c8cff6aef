"""What a stream counts, against a server that knows what it did to it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from livekit import rtc
from livekit.agents import APIConnectOptions, APIError
from livekit.plugins import tiro
from livekit.plugins.tiro.stats import Stats, Tally
from livekit.plugins.tiro.testing import TiroServer, faults

from .support.harness import FINAL, START, collect, frames, until
from .support.numbered import NumberedRecognizer, Talk, talk
from .support.session_fakes import in_virtual_time, new_stt

if TYPE_CHECKING:
    from livekit.plugins.tiro.testing import Hooks

SAID = talk(3, 2)
ONCE = APIConnectOptions(max_retry=0, timeout=4.0)


def local(*hooks: Hooks, said: Talk = SAID, **options: Any) -> TiroServer:
    known = {"is": NumberedRecognizer(said)}
    return TiroServer(recognizers=known, hooks=faults.PerConnection(*hooks), **options)


async def hear(stt: tiro.STT, *, pace: float = 0.05, **options: Any) -> tiro.SpeechStream:
    stream = stt.stream(**options)
    await collect(stream, frames(SAID.pcm()), pace=pace)
    return stream


# -- snapshots -------------------------------------------------------------------------------------


def test_a_snapshot_does_not_change() -> None:
    tally = Tally()
    tally.failed("timeout")
    before = tally.snapshot()
    tally.failed("timeout")
    tally.count("rotations")
    assert before.failures == {"timeout": 1} and before.rotations == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.rotations = 7  # type: ignore[misc]
    assert tally.snapshot() != before


def test_nothing_happened_yet() -> None:
    assert tiro.STT(api_key="test").stats == Tally().snapshot() == Stats()
    assert json.loads(json.dumps(dataclasses.asdict(Stats())))["first_audio"] is None


def test_every_figure_says_what_it_is() -> None:
    """pdoc and editors show the string below a field."""
    import ast
    import inspect

    body = ast.parse(inspect.getsource(Stats)).body[0].body  # type: ignore[attr-defined]
    for at, node in enumerate(body):
        if isinstance(node, ast.AnnAssign):
            assert isinstance(body[at + 1], ast.Expr), ast.unparse(node)


@pytest.mark.parametrize(
    ("delays", "p50", "p95"),
    [([0.5], 0.5, 0.5), ([0.3, 0.1, 0.2], 0.2, 0.3), ([n / 100 for n in range(100)], 0.5, 0.94)],
)
def test_percentiles(delays: list[float], p50: float, p95: float) -> None:
    tally = Tally()
    for delay in delays:
        tally.final(delay, 0.0)
    tally.final(None, 0.0)
    stats = tally.snapshot()
    assert (stats.final_delay_last, stats.final_delay_p50) == (delays[-1], p50)
    assert (stats.final_delay_p95, stats.finals) == (p95, len(delays) + 1)


def test_many_finals_take_no_more_memory() -> None:
    tally = Tally()
    for n in range(2000):
        tally.final(float(n), float(n))
    assert tally.snapshot().final_delay_p50 == 1750


def test_tallies_add_up() -> None:
    one, two, both = Tally(), Tally(), Tally()
    for tally, seconds in ((one, 1.0), (two, 3.0)):
        tally.connected(0, 0)
        tally.set_audio(pushed=seconds, sent=seconds, sent_to=0, sample_rate=16000)
        tally.audio_in(0.0)
        tally.audio_out(seconds)
        tally.waited(seconds)
        tally.failed("timeout")
        tally.gave_up(seconds)
        both.add(tally)
    stats = both.snapshot()
    assert (stats.connections, stats.failures) == (2, {"timeout": 2})
    assert (stats.audio_pushed, stats.audio_sent, stats.audio_given_up) == (4.0, 4.0, 4.0)
    assert (stats.longest_unanswered, stats.first_audio) == (3.0, 3.0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_latest_final_of_all_is_the_last(order: tuple[int, int]) -> None:
    """Streams are added up in no order."""
    both, tallies = Tally(), [Tally(), Tally()]
    for _ in range(501):
        tallies[0].final(1.0, 10.0)
        tallies[1].final(9.0, 5.0)
    tallies[0].final(2.0, 11.0)
    for number in order:
        both.add(tallies[number])
    stats = both.snapshot()
    assert stats.final_delay_last == 2.0
    assert (stats.final_delay_p50, stats.final_delay_p95) == (9.0, 9.0)


def test_streams_that_are_over_take_no_more_memory() -> None:
    over, stt = Tally(), tiro.STT(api_key="test", base_url="ws://localhost")
    for n in range(400):
        over.final(float(n), 0.0)
    for _ in range(10):
        stt._keep_counts(mock.Mock(tally=lambda: over))
    assert stt.stats.finals == 4000
    assert len(stt._tally._delays) == 500


# -- a stream --------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_call_without_any_trouble() -> None:
    async with local() as server, new_stt(server) as stt:
        stream = await hear(stt)
        stats = stream.stats
        assert stt.stats == stats
        (connection,) = server.connections
    assert (stats.connections, stats.rotations, stats.failures) == (1, 0, {})
    assert stats.audio_pushed == pytest.approx(SAID.seconds, abs=0.001)
    assert stats.audio_sent == pytest.approx(SAID.seconds, abs=0.001)
    assert connection.seconds > stats.audio_sent, "silence is not counted"
    assert stats.audio_sent_again == stats.audio_given_up == 0
    assert stats.finals == 2
    assert stats.first_audio is not None and stats.first_audio < 0.1


@in_virtual_time
async def test_delays_are_from_the_last_sound_to_the_final() -> None:
    async with local(endpoint_silence=0.7) as server, new_stt(server) as stt:
        stats = (await hear(stt)).stats
    # 0.7 s of silence, and 0.3 s of look-ahead; the service looks at each message.
    for delay in (stats.final_delay_last, stats.final_delay_p50, stats.final_delay_p95):
        assert delay == pytest.approx(1.0, abs=0.1)


@in_virtual_time
async def test_a_file_has_no_delays() -> None:
    said = talk(*[3] * 20)
    async with TiroServer(recognizers={"is": NumberedRecognizer(said)}) as server:
        async with new_stt(server) as stt:
            stream = stt.stream()
            await collect(stream, frames(said.pcm()))
    assert stream.stats.finals == 20
    assert stream.stats.final_delay_last is None


@in_virtual_time
async def test_rotations_and_what_is_sent_again() -> None:
    async with local(faults.Disconnect(1.2), faults.SessionLimit(1.0)) as server:
        async with new_stt(server) as stt:
            stats = (await hear(stt)).stats
        sent = sum(each.seconds for each in server.connections[:-1])
        silence = 2.5
        sent += server.connections[-1].seconds - silence
    assert (stats.connections, stats.rotations, stats.failures) == (3, 2, {})
    assert stats.audio_sent == pytest.approx(SAID.seconds, abs=0.001)
    assert stats.audio_sent + stats.audio_sent_again == pytest.approx(sent, abs=0.1)
    assert stats.audio_sent_again > 1.0


@in_virtual_time
async def test_what_is_sent_again_at_the_end_is_no_rotation() -> None:
    """The service ends the connection because it was told that no more comes."""
    said = dataclasses.replace(SAID, hums=((SAID.blocks - 60, SAID.blocks - 20),))
    async with local(said=said) as server, new_stt(server) as stt:
        stream = stt.stream()
        await collect(stream, frames(said.pcm()))
    assert stream.stats.connections == len(server.connections) > 1
    assert (stream.stats.rotations, stream.stats.failures) == (0, {})


@in_virtual_time
async def test_failures_by_kind() -> None:
    async with local(faults.Refuse(503), faults.Fail(14), faults.StalledHandshake()) as server:
        async with new_stt(server) as stt:
            retries = APIConnectOptions(max_retry=5, retry_interval=0.1, timeout=4.0)
            stats = (await hear(stt, conn_options=retries)).stats
    assert stats.failures == {"status_503": 2, "timeout": 1}
    # The connection that failed after it was open, and the last one.
    assert (stats.connections, stats.rotations) == (2, 0)


@in_virtual_time
async def test_a_line_that_is_dead_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    said = talk(*[3] * 8)
    async with local(faults.HalfOpen(1.0), said=said) as server, new_stt(server) as stt:
        stream = stt.stream()
        await collect(stream, frames(said.pcm()), pace=0.05)
    assert (stream.stats.failures, stream.stats.rotations) == ({"connection": 1}, 0)
    assert "the line to Tiro was dead" in caplog.text


@in_virtual_time
async def test_tries_to_connect_in_one_attempt_are_counted() -> None:
    down = faults.Refuse(503)
    async with local(faults.Disconnect(1.2), down, down) as server, new_stt(server) as stt:
        stats = (await hear(stt)).stats
    assert (stats.failures, stats.connections, stats.rotations) == ({"status_503": 2}, 2, 1)


@in_virtual_time
async def test_a_service_that_does_not_answer() -> None:
    said = talk(*[3] * 12)
    async with local(faults.Mute(0.5), said=said) as server, new_stt(server) as stt:
        stream = stt.stream()
        hearing = asyncio.create_task(collect(stream, frames(said.pcm()), pace=0.05))
        await until(lambda: stream.stats.longest_unanswered > 8, 30)
        await hearing
    assert stream.stats.failures == {"unresponsive": 1}
    assert stream.stats.rotations == 0
    assert stream.stats.longest_unanswered == pytest.approx(15.5, abs=1.1)


@in_virtual_time
async def test_audio_that_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    said = talk(*[3] * 45)
    hooks = faults.PerConnection(*[faults.Refuse(503)] * 50)
    server = TiroServer(recognizers={"is": NumberedRecognizer(said)}, hooks=hooks)
    async with server, new_stt(server) as stt:
        stream = stt.stream(conn_options=APIConnectOptions(60, 2.0, 4.0))
        await collect(stream, frames(said.pcm()), pace=0.05)
    (told,) = [record.args for record in caplog.records if "given up" in record.msg]
    assert isinstance(told, tuple) and isinstance(told[0], float) and told[0] > 10
    assert stream.stats.audio_given_up == told[0]
    assert stream.stats.failures == {"status_503": 50}


@in_virtual_time
async def test_options_that_change_are_no_rotation() -> None:
    async with local() as server, new_stt(server) as stt:
        stream = stt.stream()
        hearing = asyncio.create_task(collect(stream, frames(SAID.pcm()), pace=0.05))
        await until(lambda: stream.stats.audio_sent > 1)
        stt.update_options(punctuate=True)
        await hearing
    assert (stream.stats.option_changes, stream.stats.rotations) == (1, 0)
    assert stream.stats.connections == 2


@in_virtual_time
async def test_flushes() -> None:
    async with local() as server, new_stt(server) as stt:
        stream = stt.stream()
        events = []

        async def listen() -> None:
            async for event in stream:
                events.append(event)  # noqa: PERF401

        listening = asyncio.create_task(listen())
        stream.flush()
        assert stream.stats.flushes_answered == 0, "nothing was said"
        audio = list(frames(SAID.pcm()))
        for frame in audio[:30]:
            stream.push_frame(frame)
            await asyncio.sleep(0.05)
        stream.flush()
        stream.flush()
        await until(lambda: any(e.type is FINAL and e.alternatives[0].text for e in events))
        assert (stream.stats.flushes_answered, stream.stats.flushes_given_up) == (1, 0)
        await stream.aclose()
        await listening
    assert (stream.stats.flushes_answered, stream.stats.flushes_given_up) == (1, 0)


@pytest.mark.parametrize("ending", ["closed", "failed"])
@in_virtual_time
async def test_flushes_that_are_given_up(ending: str) -> None:
    fault = faults.Mute(0.5) if ending == "closed" else faults.Fail(7, faults.Moment.FLUSH)
    async with local(fault) as server, new_stt(server) as stt:
        stream = stt.stream(conn_options=ONCE)
        for frame in frames(SAID.pcm()[:16000]):
            stream.push_frame(frame)
            await asyncio.sleep(0.05)
        stream.flush()
        if ending == "failed":
            with pytest.raises(APIError):
                async for event in stream:
                    assert event.type is not START or stream.stats.flushes_given_up == 0
        else:
            await asyncio.sleep(1.0)
        await stream.aclose()
        assert (stream.stats.flushes_answered, stream.stats.flushes_given_up) == (0, 1)
        assert stt.stats == stream.stats
        await stream.aclose()
        assert stt.stats.flushes_given_up == 1


@in_virtual_time
async def test_the_first_audio_waits_for_the_connection() -> None:
    async with local(faults.StalledHandshake(0.4)) as server, new_stt(server) as stt:
        stream = stt.stream()
        await asyncio.sleep(0.1)
        await collect(stream, frames(SAID.pcm()), pace=0.05)
    assert stream.stats.first_audio == pytest.approx(0.3, abs=0.05)


# -- an STT ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_stt_adds_up_its_streams_of_now_and_of_before() -> None:
    pcm = SAID.pcm()
    async with local(faults.Disconnect(1.2)) as server, new_stt(server) as stt:
        first = (await hear(stt)).stats
        await stt.recognize(rtc.AudioFrame(pcm.tobytes(), 16000, 1, len(pcm)))
        batch = stt.stats.audio_pushed - first.audio_pushed
        assert batch == pytest.approx(SAID.seconds, abs=0.001)
        live = stt.stream()
        live.push_frame(next(frames(pcm)))
        await until(lambda: live.stats.audio_sent > 0 or live.stats.connections > 0)
        total = stt.stats
        assert total.audio_pushed == pytest.approx(2 * SAID.seconds + 0.05, abs=0.001)
        assert (total.connections, total.rotations, total.finals) == (4, 1, 4)
        await live.aclose()
        assert stt.stats.audio_pushed == total.audio_pushed, "and none is counted twice"
        assert stt.stats.connections == 4
