"""The control plane's two HTTP applications, made from its parts: the operators' API, and what callers may see of it.

`gateway.stack.up` imports this module in a thread, and last: FastAPI takes a third of the control plane's start, and
after a crash the rollouts should not wait for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version

from fastapi import FastAPI

from gateway.control import LOOPBACK, Control
from gateway.envoy.yaml_config import envoy_yaml
from gateway.server.operators import operators_app
from gateway.server.public import public_app
from gateway.settings import Settings
from gateway.stack.ports import InternalPorts
from gateway.stack.web import serving


@dataclass(frozen=True, slots=True)
class Front:
    """`operators` is for the operators' port, `public` for the internal port behind Envoy."""

    operators: FastAPI
    public: FastAPI

    @asynccontextmanager
    async def serving(self, settings: Settings, ports: InternalPorts) -> AsyncIterator[None]:
        """Both on their ports while the block runs."""
        async with (
            serving(self.operators, host=settings.operator_host, port=settings.operator_port),
            serving(self.public, host=LOOPBACK, port=ports.control_http),
        ):
            yield


def front(control: Control, settings: Settings) -> Front:
    return Front(
        operators=operators_app(
            registry=control.registry,
            deployer=control.deployer,
            serving=control.serving,
            controller=control.controller,
            health=control.health,
            metrics=control.metrics,
            golden=control.golden,
            envoy_yaml=lambda form: envoy_yaml(form, control.routing.state(), control.envoy, control.routing.weights()),
            version=installed_version("penstock"),
        ),
        public=public_app(
            registry=control.registry,
            health=control.health,
            desk=control.desk,
            authority=f"{settings.host}:{settings.port}",
        ),
    )
