"""A gateway that answers from a recording: the offline fake for apps in any language, over typed JSON and typed gRPC.

    python -m penstock_client.fake_gateway iris.json --port 8080

It answers `POST /v1/models/<model>:predict`, `/v1/feedback` and the models' gRPC services (with reflection) on one
port, as a gateway would, errors too. What was not recorded is a 404 (NOT_FOUND) with the reason NOT_RECORDED. Typed
gRPC needs `penstock-client[grpc]`, and a recording whose gateway gave the model's descriptor. Tensors that were
recorded over gRPC are flat in JSON answers too. gRPC-Web is not answered: pages test with `penstock-client/fake`.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from penstock_client.answer import Answer
from penstock_client.errors import Code, PenstockError, error_for
from penstock_client.fake import FakeClient, NotRecorded
from penstock_client.options import Call
from penstock_client.wire import HTTP_OF_CODE, to_json

_PREDICT = re.compile(r"/v(?P<major>\d+)/models/(?P<model>[^/:]+)(?:/versions/(?P<version>\d+))?:predict")

_HTTP2 = b"PRI "
"""How an HTTP/2 connection without TLS begins (RFC 9113, section 3.4); no HTTP/1.1 method is called that."""

_COPY_BYTES = 64 * 1024


class FakeGateway(ThreadingHTTPServer):
    """Listens on 127.0.0.1; port 0 for any free one. `serve_forever` in a thread, `shutdown` at the end.

    HTTP/1.1 is answered here. HTTP/2 is gRPC: such a connection is copied to and from a gRPC server of its own.
    """

    daemon_threads = True

    def __init__(self, recording: str | Path, *, port: int = 0) -> None:
        self.fake = FakeClient(recording)
        self.grpc_address = ""
        self._grpc: Any = None
        if find_spec("grpc") and find_spec("grpc_reflection") and find_spec("google.rpc"):
            from penstock_client import fake_typed

            self._grpc, self.grpc_address = fake_typed.serve(self.fake.recording)
        super().__init__(("127.0.0.1", port), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if request.recv(len(_HTTP2), socket.MSG_PEEK | socket.MSG_WAITALL) != _HTTP2:
            super().finish_request(request, client_address)
        elif self.grpc_address:
            host, _, port = self.grpc_address.partition(":")
            with socket.create_connection((host, int(port))) as server:
                threading.Thread(target=_copy, args=(server, request), daemon=True).start()
                _copy(request, server)

    def server_close(self) -> None:
        super().server_close()
        if self._grpc is not None:
            self._grpc.stop(None).wait()

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
        found = _PREDICT.fullmatch(self.path)
        if found is None:
            answered = "/v<major>/models/<model>:predict and /v1/feedback"
            raise error_for(Code.NOT_FOUND, f"{self.path}: this fake answers {answered}")
        number = found["version"] or self.headers.get("x-penstock-version")
        call = Call(version=int(number) if number else None, major=int(found["major"]), request_id=request_id)
        return self.server.fake.predict(found["model"], body.get("instances", body), **call)

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


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Until either end is closed."""
    with suppress(OSError):
        while data := source.recv(_COPY_BYTES):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m penstock_client.fake_gateway", description=__doc__)
    parser.add_argument("recording", type=Path, help="a file that penstock_client.fake.Recorder wrote")
    parser.add_argument("--port", type=int, default=8080, help="on 127.0.0.1; 0 for any free one")
    arguments = parser.parse_args()
    with FakeGateway(arguments.recording, port=arguments.port) as gateway:
        protocols = "typed JSON and gRPC" if gateway.grpc_address else "typed JSON (penstock-client[grpc] adds gRPC)"
        print(f"recorded answers at {gateway.url}, {protocols}", flush=True)  # noqa: T201  # the command's output
        gateway.serve_forever()


if __name__ == "__main__":
    main()
