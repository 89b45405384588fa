"""Locust users of one model, one class for each protocol, with feedback of true labels.

Whoever starts a run (`loadtest.run`, the locustfile `loadtest.steady`) sets `PredictUser.load` before the first user
starts. Every request is sent for one of a fixed population of callers, named in `x-user-id`, so that sticky routing and
the share of callers who met a version can be seen. Request bytes are made once; of an answer only the head and whether
it carries a prediction is looked at while the load runs.
"""

from __future__ import annotations

import json
import random
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import gevent
import grpc
from geventhttpclient import HTTPClient
from locust import User, task
from locust.env import Environment
from locust.exception import StopUser

from loadtest.connections import GrpcConnections
from loadtest.examples import Example
from loadtest.pace import Pace
from loadtest.protocols import Protocol
from loadtest.results import UNKNOWN_VERSION
from loadtest.surface import InferApi, TypedApi, WrongExample
from loadtest.tally import Tally

REQUEST_ID = "x-request-id"
USER_ID = "x-user-id"
VERSION = "x-penstock-version"
FEEDBACK_PATH = "/v1/feedback"
DEADLINE_S = 10.0
NO_PREDICTION = ("EMPTY_ANSWER", "the response carries no prediction")


@dataclass(frozen=True, slots=True)
class Call:
    """How one protocol asks the model. `bodies` has one entry for each example; `answered` looks into an answer."""

    path: str
    bodies: tuple[bytes, ...]
    answered: Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Load:
    """What all users of one process share.

    `callers` is the size of the population; `feedback_share` (0..1) the share of answers whose true label is sent
    back; `pin` is sent as `x-penstock-version`; second 0 of the tally is at `begins` (`time.perf_counter`).
    """

    calls: Mapping[Protocol, Call]
    examples: tuple[Example, ...]
    tally: Tally
    connections: GrpcConnections
    callers: int
    feedback_share: float
    begins: float
    pace: Pace
    pin: str = ""

    def second(self, instant: float) -> int:
        return max(0, int(instant - self.begins))


def calls_of(
    examples: tuple[Example, ...], protocols: Iterable[Protocol], *, typed: TypedApi | None, infer: InferApi | None
) -> dict[Protocol, Call]:
    """The calls of those protocols, with every request made. Raises WrongExample.

    A protocol needs the API that it speaks: `typed` for typed JSON and gRPC, `infer` for the others.
    """
    calls = {}
    for protocol in protocols:
        api = typed if protocol.typed else infer
        assert api is not None, f"{protocol} was asked for without its API"
        if protocol.is_grpc:
            calls[protocol] = Call(api.grpc_path, _bodies(api.grpc_body, examples), api.answered)
        else:
            calls[protocol] = Call(api.http_path, _bodies(api.json_body, examples), _json_answered)
    return calls


def _bodies(body: Callable[[Example], str | bytes], examples: tuple[Example, ...]) -> tuple[bytes, ...]:
    made = []
    for number, example in enumerate(examples, 1):
        try:
            content = body(example)
        except WrongExample as error:
            raise WrongExample(f"example {number} of {len(examples)}: {error}") from error
        made.append(content.encode() if isinstance(content, str) else content)
    return tuple(made)


@dataclass(frozen=True, slots=True)
class Answer:
    """How one prediction ended. `failure` is empty, or a reason and what was said about it."""

    version: int
    request_id: str
    size: int
    failure: tuple[str, str] | None = None


class PredictFailed(Exception):
    """A prediction that failed, as Locust's own statistics show it."""


class PredictUser(User):
    """Sends predictions at the load's pace; subclasses choose the protocol."""

    abstract = True
    protocol: ClassVar[Protocol]
    load: ClassVar[Load]

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.random = random.Random()
        self.call = self.load.calls[self.protocol]
        url = urlsplit(self.host or environment.host or "")
        self.http = HTTPClient(
            url.hostname or "",
            url.port or 80,
            concurrency=1,
            connection_timeout=DEADLINE_S,
            network_timeout=DEADLINE_S,
        )

    @task
    def predict_one(self) -> None:
        load = self.load
        turn = load.pace.next()
        if turn is None:
            raise StopUser
        index = self.random.randrange(len(load.examples))
        caller = f"caller-{self.random.randrange(load.callers)}"
        answer = self.ask(index, caller)
        now = time.perf_counter()
        latency_us = (now - turn.due) * 1e6
        second = load.second(turn.due)
        load.tally.turn(second, lag_us=turn.lag_s * 1e6, queued_us=turn.queued_s * 1e6)
        if answer.failure is None:
            came = load.second(now)
            load.tally.success(self.protocol, answer.version, caller, latency_us, second=second, came=came)
        else:
            load.tally.failure(self.protocol, answer.version, caller, *answer.failure, second=second)
        self._tell_locust(self.protocol, self.call.path, latency_us / 1000, answer)
        label = load.examples[index].label
        if answer.failure is None and label is not None and self.random.random() < load.feedback_share:
            self.tell(answer.request_id, label)

    @abstractmethod
    def ask(self, index: int, caller: str) -> Answer:
        """Send example `index` on behalf of `caller`."""

    def tell(self, request_id: str, label: int | str) -> None:
        """Feed the true label of an answered request back."""
        body = json.dumps({"request_id": request_id, "label": label}).encode()
        started = time.perf_counter()
        answer, _ = self.post(FEEDBACK_PATH, body, {})
        now = time.perf_counter()
        self.load.tally.feedback(": ".join(answer.failure or ()), second=self.load.second(now))
        self._tell_locust("feedback", FEEDBACK_PATH, (now - started) * 1000, answer)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[Answer, bytes]:
        """One HTTP request on this user's connection; its answer and body."""
        try:
            response = self.http.request("POST", path, body, {"Content-Type": "application/json", **headers})
            content = bytes(response.read())
        except (OSError, gevent.Timeout, ValueError) as error:
            return Answer(UNKNOWN_VERSION, "", 0, (type(error).__name__, str(error) or "no answer")), b""
        failure = None if response.status_code == 200 else _http_failure(response.status_code, content)
        version = _version(_text(response.get(VERSION)))
        return Answer(version, _text(response.get(REQUEST_ID)), len(content), failure), content

    def headers(self, caller: str) -> dict[str, str]:
        return {USER_ID: caller, VERSION: self.load.pin} if self.load.pin else {USER_ID: caller}

    def on_stop(self) -> None:
        self.http.close()

    def _tell_locust(self, kind: str, name: str, milliseconds: float, answer: Answer) -> None:
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=milliseconds,
            response_length=answer.size,
            exception=None if answer.failure is None else PredictFailed(": ".join(answer.failure)),
            context={},
        )


class HttpUser(PredictUser):
    """HTTP/1.1 on a connection of its own."""

    abstract = True

    def ask(self, index: int, caller: str) -> Answer:
        answer, content = self.post(self.call.path, self.call.bodies[index], self.headers(caller))
        if answer.failure is None and not self.call.answered(content):
            return Answer(answer.version, answer.request_id, answer.size, NO_PREDICTION)
        return answer


class GrpcCallUser(PredictUser):
    """gRPC, a few users on each connection."""

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.channel = self.load.connections.take()
        # No serialisers: bytes go out and come in as they are.
        self.unary = self.channel.unary_unary(self.call.path)

    def ask(self, index: int, caller: str) -> Answer:
        failure = None
        body = b""
        metadata = tuple(self.headers(caller).items())
        try:
            body, call = self.unary.with_call(self.call.bodies[index], timeout=DEADLINE_S, metadata=metadata)
        except grpc.RpcError as error:
            call = error
            failure = (error.code().name, error.details() or "")
        if failure is None and not self.call.answered(body):
            failure = NO_PREDICTION
        received = _metadata(call.initial_metadata()) | _metadata(call.trailing_metadata())
        return Answer(_version(received.get(VERSION, "")), received.get(REQUEST_ID, ""), len(body), failure)

    def on_stop(self) -> None:
        self.load.connections.give_back(self.channel)
        super().on_stop()


class JsonUser(HttpUser):
    """Typed JSON."""

    protocol = Protocol.JSON


class GrpcUser(GrpcCallUser):
    """Typed gRPC."""

    protocol = Protocol.GRPC


class InferHttpUser(HttpUser):
    """Open Inference over HTTP, values as JSON."""

    protocol = Protocol.INFER_HTTP


class InferGrpcUser(GrpcCallUser):
    """Open Inference over gRPC, values as raw contents."""

    protocol = Protocol.INFER_GRPC


USERS: Mapping[Protocol, type[PredictUser]] = {
    Protocol.JSON: JsonUser,
    Protocol.GRPC: GrpcUser,
    Protocol.INFER_HTTP: InferHttpUser,
    Protocol.INFER_GRPC: InferGrpcUser,
}


def _version(value: str) -> int:
    return int(value) if value else UNKNOWN_VERSION


def _text(value: str | list[str] | None) -> str:
    """A header that comes once; empty when it did not come."""
    return value if isinstance(value, str) else ""


def _metadata(pairs: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    return {key: value for key, value in pairs or () if isinstance(value, str)}


def _json_answered(body: bytes) -> bool:
    answer: Any = json.loads(body or b"null")
    if not isinstance(answer, dict):
        return bool(answer)
    return bool(answer.get("predictions", answer.get("outputs", answer)))


def _http_failure(status: int, content: bytes) -> tuple[str, str]:
    """Reason and message of a response that is no success: from the error's own body where there is one."""
    try:
        error = json.loads(content)
        return str(error["status"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}", content[:200].decode(errors="replace")
