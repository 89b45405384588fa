"""Every setting of the data plane's configuration, with its unit, its default and why that default.

Filled by the control plane from its own settings; the compile, the bootstrap and the Lua bundle are functions of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapters.server import Address


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """Settings of one Envoy, or of a fleet that shares one configuration."""

    listen: Address
    """Where callers connect: HTTP/1.1 and HTTP/2 without TLS on one port."""

    admin: Address
    """Envoy's own admin interface: statistics for the evidence. It can also stop Envoy, so keep it on loopback."""

    control_grpc: Address
    """The control plane's gRPC port: ADS and access logs for Envoy; reflection and health for callers."""

    control_http: Address
    """The control plane's HTTP port that callers may see through Envoy: docs, openapi.json, .proto, feedback."""

    mirror: Address | None = None
    """The mirror evaluator's gRPC port; None mirrors nothing."""

    node_id: str = "penstock"
    """Envoy's name in the control plane's errors; one per Envoy in a fleet."""

    sticky_header: str = "x-user-id"
    """Requests with the same value of this header stay on the same version while weights rise."""

    lease_ttl_s: float = 30.0
    """Seconds until an unrenewed canary weight lapses inside Envoy: long enough to restart a control plane, short
    enough for an unattended canary."""

    connect_timeout_s: float = 5.0
    """Time to open a connection to a server. Not less: a 64 MB body in Lua can hold a worker for more than a second,
    and a shorter timer then fires before the finished connection is seen."""

    max_body_bytes: int = 67_174_400
    """Largest body of any model. A model's own limit is in its routes; this one holds until the model is known."""

    max_requests: int = 10_000
    """Requests in flight to one server before Envoy answers UNAVAILABLE by itself: far above what one server can
    work on, there to bound memory."""

    max_connections: int = 1_000
    """Connections to one server's HTTP port, which carries one request per connection. (gRPC needs one per worker.)"""

    max_downstream_connections: int = 20_000
    """Connections from callers; more are refused. About 20 KB of memory each when idle."""

    max_heap_bytes: int = 4 * 1024**3
    """Envoy answers 503 near this much memory. Eight 64 MiB JSON bodies at once were measured at 1.4 GB."""

    max_header_kib: int = 32
    """All headers of a request, KiB; also bounds a caller's own x-request-id."""

    allowed_origins: tuple[str, ...] = ()
    """Web sites whose pages may call from a browser (`https://app.example`); `*` is any. None by default: a browser
    then keeps pages of other sites away from what it can reach itself, and other callers are not concerned."""

    idle_timeout_s: float = 300.0
    """A stream on which nothing moves is closed after this; every prediction has its own, shorter, time limit."""

    system_timeout_s: float = 15.0
    """Docs, feedback and server health."""

    als_flush_s: float = 0.5
    """Access log entries wait this long to be sent together. Feedback for a request can be joined after it."""
