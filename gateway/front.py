"""The control plane's two HTTP applications, made from its parts: the operators' API, and what callers may see of it.

`gateway.stack.up` imports this module last. FastAPI takes a third of the control plane's start, and after a crash the
rollouts should not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version as installed_version

from fastapi import FastAPI

from gateway.control import Control
from gateway.envoy.yaml_config import envoy_yaml
from gateway.server.operators import operators_app
from gateway.server.public import public_app
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Front:
    """`operators` is for the operators' port, `public` for the internal port behind Envoy."""

    operators: FastAPI
    public: FastAPI


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
