"""What the Envoy configuration is a function of: plain values, no I/O.

The control plane builds a `GatewayState` from its registry; `gateway.envoy.compile` turns it into resources.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapters.server import Address
from gateway.contract.lines import Line
from gateway.contract.model import Contract


@dataclass(frozen=True, slots=True)
class Backend:
    """An inference server as Envoy sees it: cluster names are made from `name`."""

    name: str
    grpc: Address
    http: Address


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A version that is loaded and proven ready.

    `served_name` and `served_version` are the inference server's own names for it; `contract` the public API it
    answers (field names and numbers are the model's locked ones). `failing`: the server has it and its last test
    inference failed, so that ready calls must not say what the server says.
    """

    version: int
    backend: str
    served_name: str
    served_version: str
    contract: Contract
    failing: bool = False


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Limits of one model; Envoy's own defaults never apply.

    `request_bytes`: largest request or response body, bytes. `timeout_s`: a whole prediction, seconds.
    `request_bytes_from`: where that size comes from, for the caller who exceeds it.
    """

    request_bytes: int = 67_174_400
    timeout_s: float = 30.0
    request_bytes_from: str = ""


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """Where requests for one routing line go: a model in one API major.

    `key` is the line's scope key. `versions` are all that can be pinned; `stable` answers by default; `canary` is the
    staged candidate, which gets what the lease says (0 without a lease).
    """

    model: str
    key: str
    versions: tuple[ServedVersion, ...]
    stable: int
    canary: int | None = None
    limits: ModelLimits = ModelLimits()
    major: int = 1

    @property
    def line(self) -> Line:
        return Line(self.model, self.major)

    def served(self, version: int) -> ServedVersion:
        return next(v for v in self.versions if v.version == version)


@dataclass(frozen=True, slots=True)
class GatewayState:
    backends: tuple[Backend, ...] = ()
    models: tuple[ModelRoutes, ...] = ()
