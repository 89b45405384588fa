"""Python client of Penstock, the model serving gateway.

    from penstock_client import Client

    with Client("http://127.0.0.1:8080") as client:
        answer = client.predict("iris", {"x": [5.1, 3.5, 1.4, 0.2]})
        print(answer.row["label"], answer.version)
        client.feedback(answer.request_id, label=0)

`GrpcClient` and `AsyncGrpcClient` (typed gRPC, need `penstock-client[grpc]`) are in `penstock_client.grpc_client`, the
offline fakes in `penstock_client.fake`.
"""

from penstock_client.answer import Answer, rows_of
from penstock_client.client import AsyncClient, Client
from penstock_client.errors import (
    Code,
    DeadlineExceeded,
    InvalidRequest,
    NotAllowed,
    NotFound,
    PenstockError,
    ServerFault,
    TooMuch,
    Unavailable,
)
from penstock_client.options import Call, Tls
from penstock_client.retry import Budget, Retries

__all__ = [
    "Answer",
    "AsyncClient",
    "Budget",
    "Call",
    "Client",
    "Code",
    "DeadlineExceeded",
    "InvalidRequest",
    "NotAllowed",
    "NotFound",
    "PenstockError",
    "Retries",
    "ServerFault",
    "Tls",
    "TooMuch",
    "Unavailable",
    "rows_of",
]
