"""Envoy's gRPC access log: what became of each prediction, answered by which version, for whom, with which label.

Envoy streams one entry per prediction, failed ones too, in batches, off the request path. Successful ones with their
labels go to the feedback desk and to the count of predicted classes; all of them, without the caller's name, to
`rollout.evidence.callers`. Counts by request are the stats access logger's business.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from envoy.data.accesslog.v3.accesslog_pb2 import AccessLogCommon, HTTPAccessLogEntry
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc

from rollout.evidence.callers import CallerLog
from rollout.evidence.envoy import outcome
from rollout.evidence.feedback import FeedbackDesk
from rollout.evidence.feedback_request import MAX_ID, MAX_LABEL
from rollout.evidence.feedback_store import Prediction
from rollout.evidence.labels import Label
from rollout.evidence.logged import CallerHash, LoggedRequest
from rollout.evidence.predicted import PredictedClasses
from rollout.evidence.recent import RecentTraffic

_log = logging.getLogger(__name__)

NAMESPACE = "penstock"
"""Dynamic metadata written by tensors.lua: model, version, gs (gRPC status), label (JSON array, one per row)."""

_OK = "0"

_FLAGS = {
    "downstream_connection_termination": "DC",
    "downstream_remote_reset": "DR",
    "downstream_protocol_error": "DPE",
    "rate_limited": "RL",
}
"""The response flags by which `outcome` tells the caller's doing, as access logs in text write them."""


class AccessLogService(als_pb2_grpc.AccessLogServiceServicer):  # type: ignore[misc]  # generated code has no types
    """`envoy.service.accesslog.v3.AccessLogService`."""

    def __init__(
        self,
        *,
        desk: FeedbackDesk,
        classes: PredictedClasses,
        callers: CallerLog,
        recent: RecentTraffic,
        entries: EntryReader,
    ) -> None:
        self._desk = desk
        self._classes = classes
        self._callers = callers
        self._recent = recent
        self._entries = entries

    async def StreamAccessLogs(  # noqa: N802 - the service's own name
        self, request_iterator: AsyncIterator[Any], context: grpc.aio.ServicerContext
    ) -> Any:
        async for message in request_iterator:
            read = [found for entry in message.http_logs.log_entry if (found := self._entries.read(entry)) is not None]
            predictions = [prediction for _, prediction in read if prediction is not None]
            requests = [request for request, _ in read]
            self._callers.record(requests)
            self._recent.record(requests)
            self._classes.record(predictions)
            self._desk.log(predictions)
        return als_pb2.StreamAccessLogsResponse()


def add_access_log(
    server: grpc.aio.Server,
    *,
    desk: FeedbackDesk,
    classes: PredictedClasses,
    callers: CallerLog,
    recent: RecentTraffic,
    sticky_header: str,
) -> None:
    """Serve the access log service on the control gRPC server."""
    entries = EntryReader(sticky_header)
    service = AccessLogService(desk=desk, classes=classes, callers=callers, recent=recent, entries=entries)
    als_pb2_grpc.add_AccessLogServiceServicer_to_server(service, server)


@dataclass(frozen=True, slots=True)
class EntryReader:
    """Entries of the log as values. `sticky_header` names the caller."""

    sticky_header: str
    hashed: CallerHash = field(default_factory=CallerHash)

    def read(self, entry: HTTPAccessLogEntry) -> tuple[LoggedRequest, Prediction | None] | None:
        """The request, and the prediction where it was answered and can be named. None for an entry that makes no
        sense; never raises."""
        request, common = entry.request, entry.common_properties
        fields = common.metadata.filter_metadata[NAMESPACE].fields
        model, version, gs = (fields[name].string_value for name in ("model", "version", "gs"))
        if not model:
            return None
        if not (version.isascii() and version.isdigit() and len(version) <= 10):
            _log.warning("access log entry of model %r has version %r: not a number", model, version)
            return None
        how = outcome(gs=gs, flags=_flags(common), code=str(entry.response.response_code.value))
        caller = request.request_headers.get(self.sticky_header.lower(), "")
        logged = LoggedRequest(
            model=model,
            version=int(version),
            outcome=how,
            latency_us=_latency_us(common) if gs == _OK else None,
            caller=self.hashed(model, caller or request.request_id),
            sticky=bool(caller),
        )
        if gs != _OK or not 1 <= len(request.request_id) <= MAX_ID:
            return logged, None
        started = common.start_time
        prediction = Prediction(
            request_id=request.request_id,
            model=model,
            version=int(version),
            labels=_labels(fields["label"].string_value),
            at=started.seconds + started.nanos / 1e9,
        )
        return logged, prediction


def _flags(common: AccessLogCommon) -> str:
    """As `%RESPONSE_FLAGS%` would have them, of those that matter here."""
    if not common.HasField("response_flags"):
        return ""
    return ",".join(short for name, short in _FLAGS.items() if getattr(common.response_flags, name))


def _latency_us(common: AccessLogCommon) -> float | None:
    """`%COMMON_DURATION(DS_RX_END:DS_TX_BEG:us)%`, as Envoy's histogram has it; None where one is unknown."""
    if not (common.HasField("time_to_first_downstream_tx_byte") and common.HasField("time_to_last_rx_byte")):
        return None
    first, last = common.time_to_first_downstream_tx_byte, common.time_to_last_rx_byte
    return max(0.0, float(first.ToMicroseconds() - last.ToMicroseconds()))


def _labels(text: str) -> tuple[Label, ...] | None:
    """The predicted labels; None when there are none, or when they are not a list of plain values."""
    if not text:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(_is_label(item) for item in value):
        return None
    return tuple(value)


def _is_label(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int) or (isinstance(value, str) and len(value) <= MAX_LABEL)
