"""The two Lua filters of the data plane as one source text each, bundled from the modules in `lua/`.

Envoy gives a filter one script and no module path, so every module goes into `package.preload`. Pure functions; used
by the bootstrap. What the scripts do and need is in `lua/README.md`.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from gateway.envoy.cors import cors_of_replies
from gateway.envoy.lua_literal import lua_module, lua_string
from gateway.envoy.settings import EnvoySettings

_COPIES = {"leaves_big": "leaves"}
"""Modules that are another module's text once more: code of its own for LuaJIT (see leaves.lua)."""

_COMMON = ("buffers", "text", "protobuf", "errors", "names", "oip_grpc", "nearest", "web", "replies")

MODEL_MODULES = ("settings", *_COMMON, "cors")
TENSORS_MODULES = (
    *_COMMON,
    "loops",
    "halves",
    "leaves",
    "leaves_big",
    "plan",
    "paths",
    "shapes",
    "request",
    "json_text",
    "json_elements",
    "json_tensor",
    "json_read",
    "typed_read",
    "contents",
    "answer",
    "doubles",
    "digits",
    "json_write",
    "connect_json",
    "typed_write",
    "stream_answer",
    "label",
    "oip_http",
    "calls",
)


def model_source(settings: EnvoySettings) -> str:
    """Script of the filter `penstock.model` (wants `clear_route_cache: true`)."""
    return _bundle("model", MODEL_MODULES, settings_module(settings))


def tensors_source() -> str:
    """Script of the filter `penstock.tensors` (wants `clear_route_cache: false`)."""
    return _bundle("tensors", TENSORS_MODULES)


def settings_module(settings: EnvoySettings) -> str:
    """The Lua module `settings`: data, no code."""
    return lua_module({"sticky_header": settings.sticky_header.lower(), "cors": cors_of_replies(settings)})


def module_source(name: str) -> str:
    """Text of one module, as `require(name)` would load it."""
    return _sources()[_COPIES.get(name, name)]


def _bundle(main: str, modules: tuple[str, ...], settings: str = "") -> str:
    parts = [
        f"package.preload[{lua_string(name)}] = function(...)\n"
        f"{settings if name == 'settings' else module_source(name)}end\n"
        for name in modules
    ]
    return "\n".join([*parts, module_source(main)])


@cache
def _sources() -> dict[str, str]:
    folder = resources.files("gateway.envoy") / "lua"
    return {
        entry.name.removesuffix(".lua"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".lua")
    }
