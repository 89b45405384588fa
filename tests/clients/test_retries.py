"""What is repeated, how often, and with what pauses."""

from __future__ import annotations

from typing import Any

import pytest
from penstock_client import AsyncClient, Budget, Client, Code, InvalidRequest, Retries, Unavailable
from penstock_client.errors import error_for
from penstock_client.grpc_client import AsyncGrpcClient, GrpcClient

from gateway.contract.descriptor import MessageClasses
from tests.clients.servers import Refused, Seen, grpc_server, http_server, status_json
from tests.contract.cases import CONTRACTS

ROW = {"x": [5.1, 3.5, 1.4, 0.2]}
UNAVAILABLE = error_for(14, "no server")


def at_once(attempts: int = 3, **budget: float) -> Retries:
    """Without a pause: the least that chance can give."""
    return Retries(attempts, budget=Budget(**budget), chance=lambda: 0.0)


class Failing:
    """Unavailable so many times, then an answer."""

    def __init__(self, times: int, code: int = 14) -> None:
        self.left = times
        self.code = code

    def over_http(self, seen: Seen) -> tuple[int, Any]:
        if self.left:
            self.left -= 1
            return {14: 503, 3: 400}[self.code], status_json(self.code, "no server", "UNAVAILABLE")
        return 200, {"predictions": [{"label": 1}]}

    def over_grpc(self, request: Any, messages: MessageClasses) -> Any:
        if self.left:
            self.left -= 1
            raise Refused(self.code, "no server", "UNAVAILABLE")
        response: Any = messages.response()
        response.predictions.add(label=1)
        return response


async def test_unavailable_is_repeated_under_the_same_request_id() -> None:
    with http_server(Failing(2).over_http) as server, Client(server.address, retries=at_once()) as client:
        assert client.predict("iris", ROW).row["label"] == 1
        assert len({seen.headers["x-request-id"] for seen in server.seen}) == 1
        assert len(server.seen) == 3
    with http_server(Failing(2).over_http) as server:
        async with AsyncClient(server.address, retries=at_once()) as awaited:
            assert (await awaited.predict("iris", ROW)).row["label"] == 1
        assert len(server.seen) == 3


async def test_grpc_repeats_too() -> None:
    iris = {"iris": CONTRACTS["iris"]}
    with grpc_server(iris, Failing(2).over_grpc) as server, GrpcClient(server.address, retries=at_once()) as client:
        assert client.predict("iris", ROW).row["label"] == 1
        assert len(server.seen) == 3
    with grpc_server(iris, Failing(2).over_grpc) as server:
        async with AsyncGrpcClient(server.address, retries=at_once()) as awaited:
            answer = await awaited.predict("iris", ROW)
            assert (answer.row["label"], answer.version, answer.model) == (1, 7, "iris")
        assert len(server.seen) == 3


def test_a_wrong_input_is_not_repeated() -> None:
    with http_server(Failing(1, code=3).over_http) as server, Client(server.address, retries=at_once()) as client:
        with pytest.raises(InvalidRequest):
            client.predict("iris", ROW)
        assert len(server.seen) == 1


def test_attempts_are_an_end() -> None:
    with http_server(Failing(9).over_http) as server, Client(server.address, retries=at_once(2)) as client:
        with pytest.raises(Unavailable):
            client.predict("iris", ROW)
        assert len(server.seen) == 2


def test_the_budget_is_shared_by_the_calls_of_a_client() -> None:
    with (
        http_server(Failing(99).over_http) as server,
        Client(server.address, retries=at_once(3, tokens=8)) as client,
    ):
        for _ in range(6):
            with pytest.raises(Unavailable):
                client.predict("iris", ROW)
        # The first call's two repeats leave 5 of 8 tokens, and any failure after that no more than half.
        assert len(server.seen) == 6 + 2


def test_successes_fill_the_budget_again() -> None:
    budget = Budget(tokens=2, per_success=0.5)
    assert not budget.failed()
    for _ in range(9):
        budget.succeeded()
    assert not budget.failed()
    budget = Budget(tokens=4)
    assert [budget.failed() for _ in range(3)] == [True, False, False]
    for _ in range(30):
        budget.succeeded()
    assert budget.failed()


def test_pauses_double_up_to_the_longest_and_end_before_the_deadline() -> None:
    retries = Retries(9, first_s=0.5, longest_s=3, budget=Budget(tokens=99), chance=lambda: 1.0)
    assert [retries.pause_s(UNAVAILABLE, attempt, 60) for attempt in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert retries.pause_s(UNAVAILABLE, 1, 0.4) is None
    assert retries.pause_s(error_for(Code.DEADLINE_EXCEEDED, "late"), 1, 60) is None


def test_no_attempts_are_refused() -> None:
    with pytest.raises(ValueError, match="attempts: expected at least 1"):
        Retries(0)
