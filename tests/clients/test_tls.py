"""The Python clients over TLS, to a real TLS listener: Envoy with a certificate of its own authority, mutual TLS too.

Behind it answers the fake gateway, which speaks HTTP/1.1 and HTTP/2 on one port, as a gateway does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme
from penstock_client import AsyncClient, Client, Retries, Tls, Unavailable
from penstock_client.fake import Recorder
from penstock_client.fake_gateway import FakeGateway
from penstock_client.grpc_client import AsyncGrpcClient, GrpcClient

from tests.clients.servers import grpc_server
from tests.clients.test_fake import matrix
from tests.contract.cases import CONTRACTS
from tests.envoy.live import running_envoy
from tests.lua.gateway import free_ports

ROW = {"a": [1, 2, 3, 4, 5, 6], "scale": 2.0}
ONCE = Retries(attempts=1)


@dataclass(frozen=True)
class Secured:
    """`any_caller` asks for no certificate, `known_callers` for one of the authority's."""

    any_caller: str
    known_callers: str
    ca: Path
    certificate: Path
    key: Path


@pytest_asyncio.fixture(scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    files = {name: folder / f"{name}.pem" for name in ("ca", "server", "server-key", "caller", "caller-key")}
    authority.cert_pem.write_to_path(files["ca"])
    for name, issued in (("server", authority.issue_cert("127.0.0.1")), ("caller", authority.issue_cert("caller"))):
        issued.cert_chain_pems[0].write_to_path(files[name])
        issued.private_key_pem.write_to_path(files[f"{name}-key"])

    recording = folder / "matrix.json"
    with (
        grpc_server({"matrix": CONTRACTS["matrix"]}, matrix) as server,
        GrpcClient(server.address) as client,
        Recorder(client, recording) as recorder,
    ):
        recorder.predict("matrix", ROW)
    with FakeGateway(recording) as fake:
        serving = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            admin, *ports = free_ports(3)
            config = envoy(admin, dict(zip((False, True), ports, strict=True)), fake.server_address[1], files)
            async with running_envoy(json.dumps(config), folder, admin):
                open_port, known_port = (f"127.0.0.1:{port}" for port in ports)
                yield Secured(open_port, known_port, files["ca"], files["caller"], files["caller-key"])
        finally:
            fake.shutdown()
            serving.join()


def envoy(admin: int, ports: dict[bool, int], upstream: int, files: dict[str, Path]) -> dict[str, Any]:
    """One listener that asks for no certificate, one that does; both to `upstream` in the caller's own protocol."""
    return {
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [listener(port, files, mutual=mutual) for mutual, port in ports.items()],
            "clusters": [
                {
                    "name": "gateway",
                    "load_assignment": {
                        "cluster_name": "gateway",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
                    },
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "use_downstream_protocol_config": {
                                "http_protocol_options": {},
                                "http2_protocol_options": {},
                            },
                        }
                    },
                }
            ],
        },
    }


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def listener(port: int, files: dict[str, Path], *, mutual: bool) -> dict[str, Any]:
    network, transport = "envoy.extensions.filters.network", "envoy.extensions.transport_sockets.tls.v3"
    certificate = {
        "certificate_chain": {"filename": str(files["server"])},
        "private_key": {"filename": str(files["server-key"])},
    }
    trusted = {"validation_context": {"trusted_ca": {"filename": str(files["ca"])}}} if mutual else {}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "gateway"}}
    manager = {
        "@type": f"type.googleapis.com/{network}.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "tls",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": f"tls-{port}",
        "address": address(port),
        "filter_chains": [
            {
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
                "transport_socket": {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": f"type.googleapis.com/{transport}.DownstreamTlsContext",
                        "require_client_certificate": mutual,
                        "common_tls_context": {
                            "tls_certificates": [certificate],
                            "alpn_protocols": ["h2", "http/1.1"],
                            **trusted,
                        },
                    },
                },
            }
        ],
    }


Asks = Callable[[str, Tls | None], Awaitable[list[float]]]


async def over_http(target: str, tls: Tls | None) -> list[float]:
    with Client(f"https://{target}", tls=tls, retries=ONCE) as client:
        answer = client.predict("matrix", ROW)
        client.feedback(answer.request_id, label=1)
        return list(answer.row["b"])


async def over_http_async(target: str, tls: Tls | None) -> list[float]:
    async with AsyncClient(f"https://{target}", tls=tls, retries=ONCE) as client:
        return list((await client.predict("matrix", ROW)).row["b"])


async def over_grpc(target: str, tls: Tls | None) -> list[float]:
    with GrpcClient(f"https://{target}", tls=tls, retries=ONCE) as client:
        answer = client.predict("matrix", ROW)
        client.feedback(answer.request_id, label=1)
        return list(answer.row["b"])


async def over_grpc_async(target: str, tls: Tls | None) -> list[float]:
    async with AsyncGrpcClient(target, tls=tls or Tls(), retries=ONCE) as client:
        return list((await client.predict("matrix", ROW)).row["b"])


CLIENTS = pytest.mark.parametrize("asks", [over_http, over_http_async, over_grpc, over_grpc_async])


@CLIENTS
async def test_an_authority_of_ones_own_is_trusted_when_it_is_named(secured: Secured, asks: Asks) -> None:
    assert await asks(secured.any_caller, Tls(ca=secured.ca)) == [2, 4, 6, 8, 10, 12]


@CLIENTS
async def test_another_authoritys_certificate_is_refused(secured: Secured, asks: Asks) -> None:
    with pytest.raises(Unavailable, match=r"(?i)certificate"):
        await asks(secured.any_caller, None)


@CLIENTS
async def test_a_caller_shows_its_certificate(secured: Secured, asks: Asks) -> None:
    known = Tls(ca=secured.ca, certificate=secured.certificate, key=secured.key)
    assert await asks(secured.known_callers, known) == [2, 4, 6, 8, 10, 12]
    with pytest.raises(Unavailable):
        await asks(secured.known_callers, Tls(ca=secured.ca))
