"""Python client of Penstock, the model serving gateway.

    from penstock_client import Client

    with Client("http://127.0.0.1:8080") as client:
        answer = client.predict("iris", {"x": [5.1, 3.5, 1.4, 0.2]})
        print(answer.row["label"], answer.version)
        client.feedback(answer.request_id, label=0)

`GrpcClient` (typed gRPC, needs `penstock-client[grpc]`) is imported from `penstock_client.grpc_client`.
"""

from penstock_client.answer import Answer
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

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "Code",
    "DeadlineExceeded",
    "InvalidRequest",
    "NotAllowed",
    "NotFound",
    "PenstockError",
    "ServerFault",
    "TooMuch",
    "Unavailable",
]
