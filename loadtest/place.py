"""The gateway that is tested, as every process of a load test finds it: the model's API, and the load made for it.

Reads the callers' documents only. Used by the process that runs a test (`loadtest.main`) and by its workers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import grpc
import httpx

from loadtest.connections import GrpcConnections
from loadtest.examples import BadExamples, Example, read_examples
from loadtest.inputs import Range, random_examples
from loadtest.pace import ClosedLoop, OpenLoop, Pace
from loadtest.plan import BadPlan, Plan
from loadtest.protocols import Protocol
from loadtest.surface import ModelApi, UnknownModel, WrongExample, model_api
from loadtest.tally import Tally
from loadtest.users import Call, Load, calls_of

TIMEOUT_S = 10.0


def find(plan: Plan) -> ModelApi:
    """The model's API. Raises UnknownModel, or BadPlan when nothing answers at the address."""
    path = f"/v2/models/{quote(plan.model, safe='')}"
    try:
        with httpx.Client(base_url=plan.gateway, timeout=TIMEOUT_S, trust_env=False) as client:
            answer = client.get(path)
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise UnknownModel(_message(answer))
            answer.raise_for_status()
            document = client.get(f"/v1/models/{quote(plan.model, safe='')}/openapi.json")
    except httpx.HTTPError as error:
        raise BadPlan(f"no gateway answers at {plan.gateway}: {error}; `penstock up` starts one") from error
    try:
        with grpc.insecure_channel(urlsplit(plan.gateway).netloc) as channel:
            return model_api(
                channel,
                plan.model,
                metadata=answer.json(),
                document=document.json() if document.is_success else None,
            )
    except grpc.RpcError as error:
        raise BadPlan(f"no gRPC reflection at {plan.gateway}: {error.details()}") from error


def protocols_of(plan: Plan, api: ModelApi) -> tuple[Protocol, ...]:
    """Those that were asked for, else typed JSON and typed gRPC where there is a typed API. Raises BadPlan."""
    if api.typed is None:
        typed = [protocol for protocol in plan.protocols if protocol.typed]
        if typed:
            raise BadPlan(f"{plan.model} has no typed API, hence no {typed[0]}; try --protocol oip-grpc,oip-http")
        return plan.protocols or (Protocol.INFER_GRPC,)
    return plan.protocols or (Protocol.JSON, Protocol.GRPC)


def examples_of(plan: Plan, api: ModelApi) -> tuple[Example, ...]:
    """What to send. Raises BadExamples."""
    if plan.inputs:
        return read_examples(Path(plan.inputs))
    return random_examples(api.form, api.datatypes, Range(plan.low, plan.high), seed=plan.seed)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with every request made: what a process needs to begin at any time."""

    plan: Plan
    examples: tuple[Example, ...]
    calls: Mapping[Protocol, Call]

    def load(self, *, starts_at: float, worker: int = 0, workers: int = 1) -> Load:
        """The load of one of several processes, which begins at the epoch second `starts_at`."""
        plan = self.plan
        begins = time.perf_counter() + starts_at - time.time()
        return Load(
            calls=self.calls,
            examples=self.examples,
            tally=Tally(),
            connections=GrpcConnections(urlsplit(plan.gateway).netloc),
            callers=plan.callers,
            feedback_share=plan.feedback,
            begins=begins,
            pace=_pace(plan, begins=begins, worker=worker, workers=workers),
            pin="" if plan.version is None else str(plan.version),
        )


def prepare(plan: Plan) -> Prepared:
    """Find the model and make every request. Raises one of CANNOT."""
    api = find(plan)
    examples = examples_of(plan, api)
    return Prepared(plan, examples, calls_of(examples, protocols_of(plan, api), typed=api.typed, infer=api.infer))


CANNOT = (BadPlan, BadExamples, UnknownModel, WrongExample)
"""Why a plan cannot be played; each says it in a sentence."""


def _pace(plan: Plan, *, begins: float, worker: int, workers: int) -> Pace:
    if plan.closed:
        return ClosedLoop(begins=begins, ends=begins + plan.seconds)
    return OpenLoop(plan.schedule, begins=begins, worker=worker, workers=workers)


def _message(answer: httpx.Response) -> str:
    try:
        error: Mapping[str, Any] = answer.json()
        return str(error.get("message") or error["error"])
    except (json.JSONDecodeError, KeyError, AttributeError):
        return answer.text[:200]
