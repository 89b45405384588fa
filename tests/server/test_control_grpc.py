"""The control plane's gRPC services, on a real server: reflection, health and Envoy's access log."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import given
from hypothesis import strategies as st

from adapters.triton.descriptors import inference_service_files
from gateway.server.access_log import EntryReader, add_access_log
from gateway.server.grpc_health import add_health
from gateway.server.reflection import add_reflection
from rollout.evidence.callers import MANY_CALLERS, CallerLog
from rollout.evidence.feedback_request import parse_feedback
from rollout.evidence.feedback_store import Prediction
from rollout.evidence.history import StableHistory
from rollout.evidence.history_store import HistoryStore
from rollout.evidence.logged import LoggedRequest
from rollout.evidence.predicted import PredictedClasses
from rollout.ports import ArmCounts, Outcome, Tick
from tests import models
from tests.server.plant import Plant

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
ADDER = "penstock.models.adder.v1.Adder"


@dataclass
class Control:
    address: str
    channel: grpc.aio.Channel
    callers: CallerLog


@pytest.fixture
async def control(plant: Plant) -> AsyncIterator[Control]:
    server = grpc.aio.server()
    add_reflection(server, contracts=plant.registry.contracts, more_files=inference_service_files())
    add_health(server, health=plant.health, contracts=plant.registry.contracts)
    store = HistoryStore(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
    history = StableHistory(store=store, stable=lambda: {("adder", 1): "adder"}, clock=plant.clock)
    callers = CallerLog(clock=plant.clock, history=history)
    add_access_log(
        server,
        desk=plant.desk,
        classes=PredictedClasses(plant.clock),
        callers=callers,
        recent=plant.recent,
        sticky_header="X-User-Id",
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    await plant.deploy("adder", models.add(1))
    async with grpc.aio.insecure_channel(address) as channel:
        yield Control(address, channel, callers)
    await server.stop(None)
    await plant.desk.close()


class TestReflection:
    async def test_a_reflection_client_builds_the_messages_of_a_model(self, control: Control) -> None:
        # grpc's own reflection client is blocking.
        with ThreadPoolExecutor(1) as thread:
            services, request = await asyncio.get_running_loop().run_in_executor(thread, reflect, control.address)
        assert ADDER in services
        assert {"grpc.health.v1.Health", "inference.GRPCInferenceService"} <= set(services)
        message = request(instances=[{"x": [1, 2, 3, 4]}])
        assert request.FromString(message.SerializeToString()) == message

    async def test_a_model_deployed_later_is_there_at_once(self, control: Control, plant: Plant) -> None:
        assert "penstock.models.doubler.v1.Doubler" not in await list_services(control)
        await plant.deploy("doubler", models.sums())
        assert "penstock.models.doubler.v1.Doubler" in await list_services(control)

    @pytest.mark.parametrize(
        ("asked", "first_file"),
        [
            ({"file_containing_symbol": f"{ADDER}.Predict"}, "penstock/models/adder/v1/adder.proto"),
            (
                {"file_containing_symbol": "penstock.models.adder.v1.Instance.x"},
                "penstock/models/adder/v1/adder.proto",
            ),
            ({"file_by_filename": "google/api/annotations.proto"}, "google/api/annotations.proto"),
            ({"file_containing_symbol": "inference.GRPCInferenceService.ModelInfer"}, "grpc_service.proto"),
            ({"file_by_filename": "google/api/http.proto"}, "google/api/http.proto"),
            ({"file_containing_symbol": "grpc.health.v1.Health"}, health_pb2.DESCRIPTOR.name),
            ({"file_containing_symbol": "grpc.reflection.v1.ServerReflection"}, "grpc/reflection/v1/reflection.proto"),
        ],
    )
    async def test_files_come_with_all_that_they_import(
        self, control: Control, asked: dict[str, str], first_file: str
    ) -> None:
        answer = await ask(control, reflection_pb2.ServerReflectionRequest(**asked))
        serialized = answer.file_descriptor_response.file_descriptor_proto
        pool = DescriptorPool()
        for file in reversed(serialized):
            pool.AddSerializedFile(file)
        assert pool.FindFileByName(first_file)

    async def test_extensions_are_found(self, control: Control) -> None:
        extension = reflection_pb2.ExtensionRequest(
            containing_type="google.protobuf.MethodOptions", extension_number=72295728
        )
        answer = await ask(control, reflection_pb2.ServerReflectionRequest(file_containing_extension=extension))
        assert b"google/api/annotations.proto" in answer.file_descriptor_response.file_descriptor_proto[0]
        request = reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="google.protobuf.MethodOptions")
        numbers = (await ask(control, request)).all_extension_numbers_response.extension_number
        assert list(numbers) == [72295728]

    @pytest.mark.parametrize(
        "asked", [{"file_containing_symbol": "no.Such"}, {"file_by_filename": "no/such.proto"}, {}]
    )
    async def test_what_is_not_there_is_an_error_and_the_stream_goes_on(
        self, control: Control, asked: dict[str, str]
    ) -> None:
        answer = await ask(control, reflection_pb2.ServerReflectionRequest(**asked))
        assert answer.error_response.error_code in (3, 5)
        assert answer.error_response.error_message

    async def test_v1_and_v1alpha_answer_the_same(self, control: Control) -> None:
        request = reflection_pb2.ServerReflectionRequest(list_services="*")
        answers = [await ask(control, request, package=f"grpc.reflection.{v}") for v in ("v1", "v1alpha")]
        assert answers[0] == answers[1]


def reflect(address: str) -> tuple[list[str], Any]:
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        method = pool.FindServiceByName(ADDER).FindMethodByName("Predict")
        return list(database.get_services()), GetMessageClass(method.input_type)


async def ask(control: Control, request: Any, package: str = "grpc.reflection.v1alpha") -> Any:
    call = control.channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )([request])
    (answer,) = [answer async for answer in call]
    return answer


async def list_services(control: Control) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(control.channel)
    call = stub.ServerReflectionInfo([reflection_pb2.ServerReflectionRequest(list_services="*")])
    (answer,) = [answer async for answer in call]
    return [service.name for service in answer.list_services_response.service]


class TestHealth:
    async def test_every_typed_service_and_the_gateway_have_a_status(self, control: Control) -> None:
        stub = health_pb2_grpc.HealthStub(control.channel)
        for service in ("", ADDER, "inference.GRPCInferenceService"):
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING

    async def test_a_model_that_does_not_answer_is_not_serving(self, control: Control, plant: Plant) -> None:
        plant.server.running = False
        await plant.upkeep.once()
        plant.clock.seconds += 10
        stub = health_pb2_grpc.HealthStub(control.channel)
        for service in ("", ADDER):
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == NOT_SERVING

    async def test_an_unknown_service_is_not_found(self, control: Control) -> None:
        stub = health_pb2_grpc.HealthStub(control.channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Check(health_pb2.HealthCheckRequest(service="no.Such"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND

    async def test_a_watcher_hears_each_change(self, control: Control, plant: Plant) -> None:
        stub = health_pb2_grpc.HealthStub(control.channel)
        call = stub.Watch(health_pb2.HealthCheckRequest(service="penstock.models.doubler.v1.Doubler"))
        assert (await call.read()).status == UNKNOWN
        await plant.deploy("doubler", models.sums())
        assert (await call.read()).status == SERVING
        plant.server.running = False
        await plant.upkeep.once()
        assert (await call.read()).status == NOT_SERVING
        call.cancel()


def entry(request_id: str = "request-1", *, user: str = "", code: int = 200, **metadata: str) -> HTTPAccessLogEntry:
    """As Envoy writes it: the metadata set by tensors.lua, the caller's header, the moments of the request."""
    logged = HTTPAccessLogEntry()
    logged.request.request_id = request_id
    logged.response.response_code.value = code
    common = logged.common_properties
    common.start_time.FromSeconds(1_700_000_000)
    common.time_to_last_rx_byte.FromMicroseconds(500)
    common.time_to_first_downstream_tx_byte.FromMicroseconds(3_700)
    common.metadata.filter_metadata["penstock"].update(
        {"model": "adder", "version": "1", "gs": "0", "label": "[3]", **metadata}
    )
    if user:
        logged.request.request_headers["x-user-id"] = user
    return logged


READER = EntryReader("X-User-Id")


def request_of(logged: HTTPAccessLogEntry) -> LoggedRequest:
    found = READER.read(logged)
    assert found is not None
    return found[0]


def prediction_of(logged: HTTPAccessLogEntry) -> Prediction | None:
    found = READER.read(logged)
    return None if found is None else found[1]


class TestAccessLog:
    async def test_logged_predictions_can_be_given_feedback(self, control: Control, plant: Plant) -> None:
        message = als_pb2.StreamAccessLogsMessage()
        message.http_logs.log_entry.extend([entry("request-1"), entry("request-2", label="[1, 2]")])
        stub = als_pb2_grpc.AccessLogServiceStub(control.channel)
        await stub.StreamAccessLogs(iter([message]))
        await plant.desk.close()
        assert plant.desk.store.totals.predictions == 2
        receipt = await plant.desk.take(parse_feedback(b'{"request_id": "request-2", "label": [1, 3]}'))
        assert (receipt.model, receipt.version, receipt.rows) == ("adder", 1, 2)
        counts = await plant.desk.counts("adder", 0, plant.desk.store.position)
        assert (counts[1].labelled, counts[1].wrong) == (2, 1)

    async def test_logged_requests_are_counted_by_caller(self, control: Control, plant: Plant) -> None:
        tick = Tick(at=1.0, seconds=1.0, arms={1: ArmCounts(ok=2 * MANY_CALLERS, bad=2)})
        control.callers.read(["adder"], {"adder": tick})
        message = als_pb2.StreamAccessLogsMessage()
        users = [f"user-{number}" for number in range(MANY_CALLERS)]
        message.http_logs.log_entry.extend([entry(user=user) for user in (*users, *users)])
        message.http_logs.log_entry.extend([entry(user="broken", gs="13", code=500)] * 2)
        await als_pb2_grpc.AccessLogServiceStub(control.channel).StreamAccessLogs(iter([message]))
        arm = control.callers.read(["adder"], {"adder": tick})["adder"].arms[1]
        assert (arm.callers, arm.bad_callers) == (MANY_CALLERS + 1, 1)

    @pytest.mark.parametrize(
        "logged",
        [
            entry(gs="3"),
            entry(gs=""),
            entry(model=""),
            entry(version="latest"),
            entry(version="²"),
            entry(""),
            entry("x" * 200),
            HTTPAccessLogEntry(),
        ],
        ids=["refused", "no-status", "no-model", "no-number", "odd-number", "no-id", "long-id", "bare"],
    )
    def test_entries_that_are_no_predictions_are_skipped(self, logged: HTTPAccessLogEntry) -> None:
        assert prediction_of(logged) is None

    @pytest.mark.parametrize(
        ("logged", "outcome"),
        [
            (entry(), Outcome.OK),
            (entry(gs="13", code=500), Outcome.BAD),
            (entry(gs="", code=503), Outcome.BAD),
            (entry(gs="3", code=400), Outcome.CALLER),
            (entry(gs="", code=408), Outcome.CALLER),
        ],
    )
    def test_how_a_request_ended_is_what_the_counters_say(self, logged: HTTPAccessLogEntry, outcome: Outcome) -> None:
        assert request_of(logged).outcome is outcome

    def test_a_caller_who_hung_up_is_nobodys_failure(self) -> None:
        logged = entry(gs="", code=0)
        logged.common_properties.response_flags.downstream_connection_termination = True
        assert request_of(logged).outcome is Outcome.CALLER

    def test_latency_is_from_the_last_byte_in_to_the_first_byte_out(self) -> None:
        assert request_of(entry()).latency_us == 3200.0
        assert request_of(entry(gs="13")).latency_us is None
        assert request_of(HTTPAccessLogEntry.FromString(untimed())).latency_us is None

    def test_a_caller_is_known_again_and_not_by_name(self) -> None:
        first, again, other = (request_of(entry(f"id-{i}", user=user)) for i, user in enumerate(("ann", "ann", "bob")))
        assert first.caller == again.caller != other.caller
        assert first.half == again.half
        assert first.sticky
        assert "ann" not in repr(first)
        elsewhere = EntryReader("x-user-id").read(entry(user="ann"))
        assert elsewhere is not None
        assert elsewhere[0].caller != first.caller, "another process has another secret"
        assert not request_of(entry()).sticky

    @pytest.mark.parametrize("label", ["", "[", "3", "[[1]]", "[null]", '{"a": 1}', "[NaN]"])
    def test_labels_that_make_no_sense_are_left_out(self, label: str) -> None:
        prediction = prediction_of(entry(label=label))
        assert prediction is not None
        assert prediction.labels is None

    @given(st.lists(st.one_of(st.integers(), st.booleans(), st.text(max_size=20), st.floats(allow_nan=False))))
    def test_any_list_of_labels_is_read_back(self, labels: list[Any]) -> None:
        labels = [label for label in labels if not (isinstance(label, float) and abs(label) == float("inf"))]
        prediction = prediction_of(entry(label=json.dumps(labels)))
        assert prediction is not None
        assert prediction.labels == tuple(labels)

    @given(st.text(), st.text())
    def test_no_label_and_no_name_is_too_odd(self, label: str, user: str) -> None:
        label, user = (text.encode("utf-8", "replace").decode() for text in (label, user))
        assert prediction_of(entry(label=label, user=user)) is not None


def untimed() -> bytes:
    logged = entry()
    logged.common_properties.ClearField("time_to_first_downstream_tx_byte")
    serialized: bytes = logged.SerializeToString()
    return serialized
