"""Locust users of a model's typed API: one over JSON, one over gRPC, both with feedback of true labels.

A locustfile (`loadtest.steady`) sets `PredictUser.load` before the first user starts. Every request is sent for one of
a fixed population of callers, named in `x-user-id`, so that sticky routing and the share of callers who met a version
can be seen. Request bytes are made once; only the response is looked at while the load runs.
"""

from __future__ import annotations

import json
import random
import time
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import grpc
from locust import FastHttpUser, task
from locust.env import Environment

from loadtest.examples import Example
from loadtest.results import UNKNOWN_VERSION, Tally
from loadtest.surface import TypedApi

REQUEST_ID = "x-request-id"
USER_ID = "x-user-id"
VERSION = "x-penstock-version"
DEADLINE_S = 10.0
NO_PREDICTION = ("EMPTY_ANSWER", "the response carries no prediction")


@dataclass(frozen=True, slots=True)
class Load:
    """What all users of one run share.

    `callers` is the size of the population; `feedback_share` (0..1) the share of answers whose true label is sent back.
    """

    api: TypedApi
    examples: tuple[Example, ...]
    json_bodies: tuple[str, ...]
    grpc_bodies: tuple[bytes, ...]
    tally: Tally
    callers: int
    feedback_share: float

    @classmethod
    def of(cls, *, api: TypedApi, examples: tuple[Example, ...], callers: int, feedback_share: float) -> Load:
        return cls(
            api=api,
            examples=examples,
            json_bodies=tuple(api.json_body(example) for example in examples),
            grpc_bodies=tuple(api.grpc_body(example) for example in examples),
            tally=Tally(),
            callers=callers,
            feedback_share=feedback_share,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """How one prediction ended. `failure` is empty, or a reason and what was said about it."""

    version: int
    request_id: str
    latency_us: float
    failure: tuple[str, str] | None = None


class PredictUser(FastHttpUser):
    """Sends predictions at the pace its locustfile sets; subclasses choose the protocol."""

    abstract = True
    protocol: ClassVar[str]
    load: ClassVar[Load]
    network_timeout = DEADLINE_S
    connection_timeout = DEADLINE_S

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.random = random.Random()

    @task
    def predict_one(self) -> None:
        index = self.random.randrange(len(self.load.examples))
        caller = f"caller-{self.random.randrange(self.load.callers)}"
        answer = self.ask(index, caller)
        if answer.failure is not None:
            self.load.tally.failure(self.protocol, answer.version, caller, *answer.failure)
            return
        self.load.tally.success(self.protocol, answer.version, caller, answer.latency_us)
        label = self.load.examples[index].label
        if label is not None and self.random.random() < self.load.feedback_share:
            self.tell(answer.request_id, label)

    @abstractmethod
    def ask(self, index: int, caller: str) -> Answer:
        """Send example `index` on behalf of `caller`."""

    def tell(self, request_id: str, label: int | str) -> None:
        """Feed the true label of an answered request back."""
        body = json.dumps({"request_id": request_id, "label": label})
        headers = {"Content-Type": "application/json"}
        with self.client.post("/v1/feedback", data=body, headers=headers, catch_response=True) as response:
            failure = _http_failure(response)
            if failure is not None:
                response.failure(": ".join(failure))
            self.load.tally.feedback(": ".join(failure or ()))


class JsonUser(PredictUser):
    """Typed JSON over HTTP/1.1."""

    protocol = "JSON"

    def ask(self, index: int, caller: str) -> Answer:
        path = self.load.api.http_path
        headers = {"Content-Type": "application/json", USER_ID: caller}
        started = time.perf_counter()
        with self.client.post(
            path, data=self.load.json_bodies[index], headers=headers, name=path, catch_response=True
        ) as response:
            latency_us = (time.perf_counter() - started) * 1e6
            failure = _http_failure(response)
            if failure is None and not _answered(response.content):
                failure = NO_PREDICTION
            if failure is not None:
                response.failure(": ".join(failure))
            received = response.headers or {}
            return Answer(_version(received.get(VERSION)), received.get(REQUEST_ID, ""), latency_us, failure)


class GrpcUser(PredictUser):
    """Typed gRPC, each user on a connection of its own as a mobile client would be."""

    protocol = "gRPC"

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        target = (self.host or environment.host or "").removeprefix("http://")
        self.channel = grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
        # No serialisers: bytes go out and come in as they are.
        self.call = self.channel.unary_unary(self.load.api.grpc_path)

    def ask(self, index: int, caller: str) -> Answer:
        failure = None
        body = b""
        started = time.perf_counter()
        try:
            body, call = self.call.with_call(
                self.load.grpc_bodies[index], timeout=DEADLINE_S, metadata=((USER_ID, caller),)
            )
        except grpc.RpcError as error:
            call = error
            failure = (error.code().name, error.details() or "")
        latency_us = (time.perf_counter() - started) * 1e6
        if failure is None and not self.load.api.answered(body):
            failure = NO_PREDICTION
        received = _metadata(call.initial_metadata()) | _metadata(call.trailing_metadata())
        self.environment.events.request.fire(
            request_type=self.protocol,
            name=self.load.api.grpc_path,
            response_time=latency_us / 1000,
            response_length=len(body),
            exception=None if failure is None else PredictFailed(": ".join(failure)),
            context={},
        )
        return Answer(_version(received.get(VERSION)), received.get(REQUEST_ID, ""), latency_us, failure)

    def on_stop(self) -> None:
        self.channel.close()


class PredictFailed(Exception):
    """A prediction that failed, as Locust's own statistics show it."""


def _version(value: str | None) -> int:
    return int(value) if value else UNKNOWN_VERSION


def _metadata(pairs: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    return {key: value for key, value in pairs or () if isinstance(value, str)}


def _answered(body: bytes | None) -> bool:
    answer: Any = json.loads(body or b"null")
    return bool(answer.get("predictions", answer) if isinstance(answer, dict) else answer)


def _http_failure(response: Any) -> tuple[str, str] | None:
    """Reason and message of a response that is no success: from the error's own body where there is one."""
    if response.status_code == 0:
        return type(response.error).__name__, str(response.error)
    if response.ok:
        return None
    try:
        error = json.loads(response.content or b"")
        return str(error["status"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}", (response.text or "")[:200]
