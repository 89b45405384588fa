"""A gateway that answers from a recording: the offline fake for apps in any language, over the typed JSON API.

    python -m penstock_client.fake_gateway iris.json --port 8080

It answers `POST /v1/models/<model>:predict` and `/v1/feedback` as a gateway would, errors too. What was not recorded
is a 404 with the reason NOT_RECORDED.
"""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from penstock_client.answer import Answer
from penstock_client.errors import Code, PenstockError, error_for
from penstock_client.fake import FakeClient, NotRecorded
from penstock_client.wire import HTTP_OF_CODE, to_json

_PREDICT = ("/v1/models/", ":predict")


class FakeGateway(ThreadingHTTPServer):
    """Listens on 127.0.0.1; port 0 for any free one. `serve_forever` in a thread, `shutdown` at the end."""

    def __init__(self, recording: str | Path, *, port: int = 0) -> None:
        self.fake = FakeClient(recording)
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeGateway

    def do_POST(self) -> None:
        request_id = self.headers.get("x-request-id") or str(uuid.uuid4())
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
            if self.path == "/v1/feedback":
                self.server.fake.feedback(
                    body["request_id"], label=body.get("label"), reward=body.get("reward"), row=body.get("row")
                )
                self._reply(200, {"request_id": body["request_id"], "state": "recorded"}, {})
                return
            answer = self._predict(body, request_id)
            value = {"predictions": answer.rows} if answer.batched else answer.row
            version = str(answer.version)
            self._reply(200, value, {"x-penstock-model": answer.model, "x-penstock-version": version}, request_id)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._refuse(error_for(Code.INVALID_ARGUMENT, f"not a request: {error!r}"), request_id)
        except NotRecorded as error:
            self._refuse(error_for(Code.NOT_FOUND, str(error), reason="NOT_RECORDED"), request_id)
        except PenstockError as error:
            self._refuse(error, request_id)

    def log_message(self, *_: object) -> None:
        """Nothing: this runs inside somebody's tests."""

    def _predict(self, body: Any, request_id: str) -> Answer:
        """A request's only instance may have been recorded as one row, or as a list of one."""
        start, end = _PREDICT
        if not (self.path.startswith(start) and self.path.endswith(end)):
            raise error_for(Code.NOT_FOUND, f"{self.path}: this fake answers {start}<model>{end} and /v1/feedback")
        model, _, pinned = self.path[len(start) : -len(end)].partition("/versions/")
        number = pinned or self.headers.get("x-penstock-version")
        version = int(number) if number else None
        rows = body.get("instances")
        if not isinstance(rows, list):
            return self.server.fake.predict(model, body, version=version, request_id=request_id)
        if len(rows) == 1:
            try:
                return self.server.fake.predict(model, rows[0], version=version, request_id=request_id)
            except NotRecorded:
                pass
        return self.server.fake.predict(model, rows, version=version, request_id=request_id)

    def _refuse(self, error: PenstockError, request_id: str) -> None:
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": error.reason,
            "domain": "penstock",
            "metadata": error.metadata,
        }
        value = {"code": error.code, "status": error.code.name, "message": error.message, "details": [info]}
        self._reply(HTTP_OF_CODE[error.code], value, {}, request_id)

    def _reply(self, status: int, value: Any, headers: Mapping[str, str], request_id: str = "") -> None:
        content = to_json(value)
        self.send_response(status)
        named = {"content-type": "application/json", "content-length": str(len(content)), **headers}
        for name, text in {**named, **({"x-request-id": request_id} if request_id else {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m penstock_client.fake_gateway", description=__doc__)
    parser.add_argument("recording", type=Path, help="a file that penstock_client.fake.Recorder wrote")
    parser.add_argument("--port", type=int, default=8080, help="on 127.0.0.1; 0 for any free one")
    arguments = parser.parse_args()
    with FakeGateway(arguments.recording, port=arguments.port) as gateway:
        print(f"recorded answers at {gateway.url}", flush=True)  # noqa: T201  # this is the command's output
        gateway.serve_forever()


if __name__ == "__main__":
    main()
