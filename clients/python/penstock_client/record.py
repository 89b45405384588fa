"""Records answers for the fake gateway from a shell, for apps that are not in Python. Needs `penstock-client[grpc]`.

    python -m penstock_client.record 127.0.0.1:8080 iris example.json --out recorded.json

Each file is a request in proto3's JSON, as `penstock api MODEL --format LANGUAGE` writes its example.json. What the
gateway refuses is recorded too, so that an app's error handling can be tested.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.json_format import Parse, ParseError

from penstock_client.errors import PenstockError
from penstock_client.fake import Recorder
from penstock_client.grpc_client import GrpcClient
from penstock_client.grpc_messages import inputs_of, services_of
from penstock_client.options import Call


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every request has an answer or a refusal of the model's now in the file, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m penstock_client.record", description=__doc__)
    parser.add_argument("target", help="the gateway: host:port, or https://host:port")
    parser.add_argument("model")
    parser.add_argument("requests", type=Path, nargs="+", help="files with one request each")
    parser.add_argument("--major", type=int, default=1, help="of the model's API")
    parser.add_argument("--version", type=int, help="record the answers of this version")
    parser.add_argument("--out", type=Path, default=Path("recorded.json"))
    given = parser.parse_args(arguments)
    call = Call(major=given.major, version=given.version)
    try:
        with GrpcClient(given.target) as client:
            (service,) = services_of(client.descriptor(given.model, major=given.major))
            requests = {path: Parse(path.read_text(encoding="utf-8"), service.request()) for path in given.requests}
            with Recorder(client, given.out) as recorder:
                for path, request in requests.items():
                    rows = inputs_of(service, request)
                    try:
                        answer = recorder.predict(given.model, rows if service.batching else rows[0], **call)
                        _say(f"{path}: answered by version {answer.version}")
                    except PenstockError as refused:
                        if not refused.reason:
                            raise
                        _say(f"{path}: {refused}")
    except (PenstockError, ParseError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    _say(f"wrote {given.out}; python -m penstock_client.fake_gateway {given.out} answers it")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
