"""Envoy's gRPC access log: which request id was answered by which version, and with which label.

Envoy streams one entry per prediction, in batches, off the request path. What is kept of it goes to the feedback
desk. Entries that are not successful predictions are of no use to feedback and are dropped here; counting outcomes is
the stats access logger's business.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import grpc
from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc

from rollout.evidence.feedback import FeedbackDesk
from rollout.evidence.feedback_request import MAX_ID, MAX_LABEL
from rollout.evidence.feedback_store import Prediction
from rollout.evidence.labels import Label
from rollout.evidence.predicted import PredictedClasses

_log = logging.getLogger(__name__)

NAMESPACE = "penstock"
"""Dynamic metadata written by tensors.lua: model, version, gs (gRPC status), label (JSON array, one per row)."""

_OK = "0"


class AccessLogService(als_pb2_grpc.AccessLogServiceServicer):  # type: ignore[misc]  # generated code has no types
    """`envoy.service.accesslog.v3.AccessLogService`, feeding the feedback desk and the count of predicted classes."""

    def __init__(self, *, desk: FeedbackDesk, classes: PredictedClasses) -> None:
        self._desk = desk
        self._classes = classes

    async def StreamAccessLogs(  # noqa: N802 - the service's own name
        self, request_iterator: AsyncIterator[Any], context: grpc.aio.ServicerContext
    ) -> Any:
        async for message in request_iterator:
            logged = list(predictions(message.http_logs.log_entry))
            self._classes.record(logged)
            self._desk.log(logged)
        return als_pb2.StreamAccessLogsResponse()


def add_access_log(server: grpc.aio.Server, *, desk: FeedbackDesk, classes: PredictedClasses) -> None:
    """Serve the access log service on the control gRPC server."""
    als_pb2_grpc.add_AccessLogServiceServicer_to_server(AccessLogService(desk=desk, classes=classes), server)


def predictions(entries: Iterable[HTTPAccessLogEntry]) -> Iterator[Prediction]:
    """The successful predictions among log entries. Entries that make no sense are skipped, never raised."""
    for entry in entries:
        found = _prediction(entry)
        if found is not None:
            yield found


def _prediction(entry: HTTPAccessLogEntry) -> Prediction | None:
    request_id = entry.request.request_id
    fields = entry.common_properties.metadata.filter_metadata[NAMESPACE].fields
    model, version = fields["model"].string_value, fields["version"].string_value
    if fields["gs"].string_value != _OK or not model or not 1 <= len(request_id) <= MAX_ID:
        return None
    if not (version.isascii() and version.isdigit() and len(version) <= 10):
        _log.warning("access log entry of model %r has version %r: not a number", model, version)
        return None
    started = entry.common_properties.start_time
    return Prediction(
        request_id=request_id,
        model=model,
        version=int(version),
        labels=_labels(fields["label"].string_value),
        at=started.seconds + started.nanos / 1e9,
    )


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
