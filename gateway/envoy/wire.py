"""Resources as Envoy's own protobufs: the last step before they go onto a stream.

Importing this registers every message type that a compiled resource holds inside an `Any`.
"""

from __future__ import annotations

from typing import Any, cast

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from envoy.extensions.clusters.aggregate.v3 import cluster_pb2 as _aggregate  # noqa: F401
from envoy.extensions.filters.http.cors.v3 import cors_pb2 as _cors  # noqa: F401
from envoy.extensions.filters.http.lua.v3 import lua_pb2 as _lua  # noqa: F401
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2 as _previous_hosts  # noqa: F401
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as _http_options  # noqa: F401
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.runtime.v3 import rtds_pb2
from google.protobuf import json_format

from gateway.envoy.snapshot import Resource, TypeUrl

_MESSAGES: dict[TypeUrl, Any] = {
    TypeUrl.CLUSTER: cluster_pb2.Cluster,
    TypeUrl.ROUTES: route_pb2.RouteConfiguration,
    TypeUrl.SCOPE: scoped_route_pb2.ScopedRouteConfiguration,
    TypeUrl.RUNTIME: rtds_pb2.Runtime,
}


def to_wire(resource: Resource) -> Any:
    """The resource as an `envoy.service.discovery.v3.Resource`.

    Raises ValueError with the field's name for a body that is not a message of its type.
    """
    message = _MESSAGES[resource.type_url]()
    try:
        json_format.ParseDict(resource.body, message)
    except json_format.ParseError as error:
        raise ValueError(f"{resource.type_url.name} {resource.name!r} is no Envoy resource: {error}") from error
    wrapped = discovery_pb2.Resource(name=resource.name, version=resource.version)
    wrapped.resource.type_url = resource.type_url.value
    wrapped.resource.value = cast(bytes, message.SerializeToString(deterministic=True))
    return wrapped
