"""Envoy configurations as YAML for people and for `envoy -c`: the bootstrap, or everything in one static file.

`penstock envoy` prints them; the embedded stack starts Envoy with the first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

import yaml

from gateway.envoy.bootstrap import bootstrap, static_bootstrap
from gateway.envoy.clusters import backend_clusters
from gateway.envoy.compile import check, other_majors, scope, scope_keys
from gateway.envoy.compile import compile as compile_snapshot
from gateway.envoy.mirror import mirror_clusters
from gateway.envoy.routes import model_route_configuration
from gateway.envoy.settings import EnvoySettings
from gateway.envoy.snapshot import Json
from gateway.envoy.state import GatewayState
from gateway.envoy.system_routes import SYSTEM_SCOPE, system_route_configuration


class EnvoyForm(StrEnum):
    """Which of Envoy's configurations."""

    COMPILED = "compiled"
    """What Envoy serves now, in one file: the models' routes and weights, and the control plane's own."""
    STATIC = "static"
    """The same for an Envoy that has no control plane."""
    BOOTSTRAP = "bootstrap"
    """What the embedded Envoy is started with; it takes the rest from the control plane."""


def envoy_yaml(form: EnvoyForm, state: GatewayState, settings: EnvoySettings, weights: Mapping[str, int]) -> str:
    """The configuration in one of its forms. Raises as `static_yaml`."""
    if form is EnvoyForm.BOOTSTRAP:
        return bootstrap_yaml(settings)
    return static_yaml(state, settings, weights, control_plane=form is EnvoyForm.COMPILED)


def bootstrap_yaml(settings: EnvoySettings) -> str:
    """The bootstrap of an Envoy that takes models and weights from the control plane."""
    return _dump(bootstrap(settings))


def static_yaml(
    state: GatewayState, settings: EnvoySettings, weights: Mapping[str, int], *, control_plane: bool = False
) -> str:
    """The compiled configuration, everything in one file that runs by itself.

    `weights` are canary weights in basis points by model name; they stay until the file changes. Docs, reflection and
    feedback are answered by a control plane, and left out without one. Raises BadState, and ValueError for
    impossible weights.
    """
    state = check(state)
    if not control_plane:
        settings = replace(settings, mirror=None)
    scopes = [_inline_scope(SYSTEM_SCOPE, system_route_configuration(state, settings, control_plane=control_plane))]
    others = other_majors(state)
    for model in state.models:
        routes = model_route_configuration(
            model, settings, control_plane=control_plane, others=others.get(model.key, ())
        )
        scopes.extend(_inline_scope(key, routes) for key in scope_keys(model, others))
    clusters = [cluster for backend in state.backends for cluster in backend_clusters(backend, settings)]
    clusters.extend(mirror_clusters(settings))
    runtime = compile_snapshot(state, settings).runtime(weights)
    return _dump(
        static_bootstrap(settings, clusters=clusters, scopes=scopes, runtime=runtime, control_plane=control_plane)
    )


def _inline_scope(key: str, configuration: Json) -> Json:
    inline = {"route_configuration": configuration}
    named = scope(key, key)
    del named["route_configuration_name"]
    return named | inline


class _Dumper(yaml.CSafeDumper):
    """Plain YAML: no anchors for repeated parts, and source code as block text.

    In C: the Lua scripts in it take the dumper in Python a tenth of a second, which every start would wait for.
    """

    def ignore_aliases(self, data: object) -> bool:
        return True


# What every YAML reader takes for text. Envoy's takes `y` for true and `1e3` for a number, where PyYAML would not
# quote them; a tensor may well be called y.
_PLAIN = re.compile(r"(?!(yes|no|on|off|true|false|null|nan|inf)$)[a-z][a-z0-9_./@-]*[a-z0-9]", re.IGNORECASE)


def _text(dumper: yaml.CSafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None if _PLAIN.fullmatch(value) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _dump(value: Json) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=True, width=120, default_flow_style=False, allow_unicode=True)
