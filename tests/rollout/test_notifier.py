"""Webhooks reach real HTTP servers, whatever those do, and hold up nothing."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn import Config, Server

from rollout.clock import SystemClock
from rollout.controller import Controller
from rollout.machine import Progress, State
from rollout.notices import Notice, notice, occasion_of
from rollout.notifier import Notifier, Persistence
from rollout.ports import Clock
from rollout.spec_parts import Occasion, Webhook
from tests.rollout.virtual import VirtualClock, run_virtual
from tests.rollout.world import QUICK, Behaviour, make_controller, make_world, running, until
from tests.triton_server import free_ports

IMPATIENT = Persistence(first=0.01, longest=0.02, attempts=4, timeout=0.2, queue=3)


@dataclass
class Receiver:
    """An HTTP server of its own; `answers` are the status codes to give, the last one from then on."""

    answers: Sequence[int] = (200,)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    received: list[dict[str, object]] = field(default_factory=list)
    url: str = ""

    async def take(self, request: Request) -> Response:
        await self.open.wait()
        self.received.append(json.loads(await request.body()))
        return Response(status_code=self.answers[min(len(self.received), len(self.answers)) - 1])


@asynccontextmanager
async def receiving(*answers: int, stuck: bool = False) -> AsyncIterator[Receiver]:
    receiver = Receiver(answers or (200,))
    if not stuck:
        receiver.open.set()
    app = Starlette(routes=[Route("/hook", receiver.take, methods=["POST"])])
    (port,) = free_ports(1)
    server = Server(Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    receiver.url = f"http://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        receiver.open.set()
        server.should_exit = True
        await task


@asynccontextmanager
async def notifying(clock: Clock | None = None) -> AsyncIterator[Notifier]:
    notifier = Notifier(clock=clock or SystemClock(), persistence=IMPATIENT)
    try:
        yield notifier
    finally:
        await notifier.aclose()


def said(occasion: Occasion = Occasion.PROMOTED, text: str = "digits: version 2 is stable now.") -> Notice:
    return Notice(occasion, text, {"model": "digits", "weight": "100 %"})


async def settled(notifier: Notifier, count: int) -> None:
    """Until so many notices were delivered or given up."""
    while notifier.totals.delivered + notifier.totals.failed < count:
        await asyncio.sleep(0.01)


async def test_a_notice_arrives_in_the_form_that_slack_takes() -> None:
    async with receiving() as receiver, notifying() as notifier:
        notifier.tell(said(), [Webhook(receiver.url)])
        await settled(notifier, 1)
    (payload,) = receiver.received
    assert payload["text"] == "digits: version 2 is stable now."
    assert payload["attachments"] == [
        {
            "fallback": payload["text"],
            "color": "good",
            "fields": [
                {"title": "model", "value": "digits", "short": True},
                {"title": "weight", "value": "100 %", "short": True},
            ],
        }
    ]
    assert payload["penstock"] == {"occasion": "promoted", "model": "digits", "weight": "100 %"}


async def test_a_receiver_that_fails_is_tried_again_until_it_takes_it() -> None:
    async with receiving(500, 429, 200) as receiver, notifying() as notifier:
        notifier.tell(said(), [Webhook(receiver.url)])
        await settled(notifier, 1)
        assert (notifier.totals.delivered, notifier.totals.retries) == (1, 2)


async def test_a_receiver_that_never_takes_it_is_given_up_and_the_next_notice_is_sent() -> None:
    async with receiving(500, 500, 500, 500, 200) as receiver, notifying() as notifier:
        for text in ("lost", "delivered"):
            notifier.tell(said(text=text), [Webhook(receiver.url)])
        await settled(notifier, 2)
        assert (notifier.totals.failed, notifier.totals.delivered) == (1, 1)
        assert receiver.received[-1]["text"] == "delivered"


async def test_nobody_at_the_address_holds_up_no_other_address() -> None:
    async with receiving() as receiver, notifying() as notifier:
        (closed,) = free_ports(1)
        notifier.tell(said(), [Webhook(f"http://127.0.0.1:{closed}/hook"), Webhook(receiver.url)])
        await settled(notifier, 2)
        assert (notifier.totals.failed, notifier.totals.delivered) == (1, 1)


async def test_a_queue_is_bounded_and_drops_the_oldest() -> None:
    async with receiving(stuck=True) as receiver, notifying() as notifier:
        for number in range(10):
            notifier.tell(said(text=str(number)), [Webhook(receiver.url)])
        assert notifier.waiting <= IMPATIENT.queue
        assert notifier.totals.dropped >= 6
        receiver.open.set()
        await settled(notifier, 10 - notifier.totals.dropped)
    assert receiver.received[-1]["text"] == "9"


async def test_only_the_occasions_that_were_asked_for_are_told() -> None:
    async with receiving() as receiver, notifying() as notifier:
        webhook = Webhook(receiver.url, frozenset({Occasion.ROLLED_BACK}))
        notifier.tell(said(), [webhook])
        notifier.tell(said(Occasion.ROLLED_BACK, "taken back"), [webhook])
        await settled(notifier, 1)
    assert [payload["text"] for payload in receiver.received] == ["taken back"]


class Listener(Notifier):
    """Keeps what it is told instead of sending it: whole rollouts run on virtual time, which HTTP does not."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.heard: list[Notice] = []

    def tell(self, notice: Notice, webhooks: object) -> None:
        self.heard.append(notice)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        (0.001, ["started", "advanced", "advanced", "advanced", "promoted"]),
        (0.3, ["started", "advanced", "rolling_back", "rolled_back"]),
    ],
)
def test_a_rollout_tells_its_turns(errors: float, expected: list[str]) -> None:
    async def test(clock: VirtualClock) -> list[Notice]:
        world = make_world(clock, Behaviour(errors=errors))
        listener = Listener(clock)
        controller = make_controller(world, sqlite3.connect(":memory:"), notifier=listener)
        async with running(controller, world):
            await controller.start("digits", 2, 1, replace(QUICK, notify=(Webhook("http://127.0.0.1:1/hook"),)))
            await until(world, controller, State.PROMOTED, State.ROLLED_BACK)
        await listener.aclose()
        return listener.heard

    heard = run_virtual(test)
    assert [notice.occasion.value for notice in heard] == expected
    assert heard[0].text.startswith("digits: version 2 is being rolled out, from version 1. ")
    assert heard[-1].fields["rollout"] == "1"


def test_a_gate_by_hand_calls_an_operator_and_a_timed_one_nobody() -> None:
    before, gate = Progress(state=State.STEP, step=0), Progress(state=State.GATE, step=0)
    assert occasion_of(before, gate, by_hand=True) is Occasion.WAITING
    assert occasion_of(before, gate, by_hand=False) is None
    assert occasion_of(before, replace(before, overdue=True), by_hand=False) is Occasion.OVERDUE
    assert occasion_of(before, replace(before, withheld=True), by_hand=False) is None


def test_what_is_said_names_version_weight_and_reason() -> None:
    async def test(clock: VirtualClock) -> Controller:
        world = make_world(clock)
        controller = make_controller(world, sqlite3.connect(":memory:"))
        async with running(controller, world):
            await controller.start("digits", 2, 1, QUICK)
            await until(world, controller, State.STEP)
            await controller.pause("digits", by="ada", reason="sale today")
        return controller

    status = run_virtual(test).status("digits")
    assert notice(Occasion.PAUSED, status).text == "digits: version 2 is paused at 10 %. Pause by ada: sale today"
