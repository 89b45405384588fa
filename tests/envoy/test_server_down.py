"""No inference server behind a real Envoy: every protocol says UNAVAILABLE and when to try again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from adapters.server import Address
from gateway.contract.descriptor import message_classes
from gateway.envoy.state import Backend
from gateway.envoy.yaml_config import static_yaml
from tests.envoy.live import running_envoy
from tests.envoy.states import model, settings, state
from tests.protocols import PROTOCOLS, Call, Target
from tests.triton_server import free_ports

ENVOYS_WORDS = ("upstream connect error", "connection refused", "delayed connect", "envoy")
"""What Envoy's own words for it would have."""


async def test_a_server_that_is_down_is_unavailable_over_every_protocol(tmp_path: Path) -> None:
    listen, admin, nobody = free_ports(3)
    digits = model("digits", 1, stable=1)
    messages = message_classes(digits.versions[0].contract)
    server = Backend("triton", grpc=Address("127.0.0.1", nobody), http=Address("127.0.0.1", nobody))
    config = static_yaml(state(digits, server=server), settings(listen=listen, admin=admin), {})
    call = Call(
        model="digits",
        service="penstock.models.digits.v1.Digits",
        encode=lambda rows: bytes(messages.request(instances=rows).SerializeToString()),
        rows=[{"x": [1.5]}],
    )
    async with running_envoy(config, tmp_path, admin):
        with grpc.insecure_channel(f"127.0.0.1:{listen}") as channel:
            target = Target(f"http://127.0.0.1:{listen}", channel)
            for name, protocol in PROTOCOLS.items():
                refusal = await asyncio.to_thread(protocol, target, call)
                assert (refusal.code, refusal.reason, refusal.retry_s) == (14, "UNAVAILABLE", 1), (name, refusal)
                assert refusal.http in {None, 503}, (name, refusal)
                assert refusal.metadata["hop"] == "server", (name, refusal)
                assert not any(hint in refusal.message.lower() for hint in ENVOYS_WORDS), (name, refusal)
