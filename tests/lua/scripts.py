"""The Lua modules alone under LuaJIT, without Envoy: the same text that Envoy runs, called from Python."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lupa import luajit21

from gateway.envoy import lua_bundle

_CALLS = """
local plans, errors = require("plan"), require("errors")
local json_read, typed_read = require("json_read"), require("typed_read")
local answers, label = require("answer"), require("label")
local json_write, typed_write = require("json_write"), require("typed_write")
local stream_answer = require("stream_answer")

local function call(f, ...)
  local ok, result, more = pcall(f, ...)
  if ok then
    return true, result, more
  end
  if type(result) ~= "table" then
    error(result) -- a fault of the scripts, not an error of the request
  end
  return false, errors.json(errors.caught(result)), errors.status_bytes(result)
end

return {
  compile = plans.compile,
  decode_json = function(plan, body) return call(json_read.decode, plan, body) end,
  decode_typed = function(plan, body) return call(typed_read.decode, plan, body) end,
  encode_json = function(plan, body)
    return call(function()
      local answer = answers.parse(plan, body)
      return json_write.encode(plan, answer), label.of(plan, answer)
    end)
  end,
  encode_typed = function(plan, body)
    return call(function()
      local answer = answers.parse(plan, body)
      return typed_write.encode(plan, answer), label.of(plan, answer)
    end)
  end,
  new_stream = stream_answer.new,
  edit_stream = function(state, chunk) return call(stream_answer.edit, state, chunk) end,
  finish_stream = function(state) return call(stream_answer.finish, state) end,
}
"""


class Refused(Exception):
    """The scripts refused a body; `json` and `status` are the error as callers of either protocol get it."""

    def __init__(self, json: bytes, status: bytes) -> None:
        super().__init__(json.decode())
        self.json = json
        self.status = status


class Scripts:
    """One LuaJIT with the modules of the tensors filter."""

    def __init__(self) -> None:
        self.lua: Any = luajit21.LuaRuntime(encoding=None, unpack_returned_tuples=True)
        preload = self.lua.globals()[b"package"][b"preload"]
        for name in lua_bundle.TENSORS_MODULES:
            preload[name.encode()] = self.lua.eval(
                b"function(source, name) return assert(loadstring(source, name)) end"
            )(lua_bundle.module_source(name).encode(), b"=" + name.encode())
        self.require("loops")  # sets how LuaJIT compiles, as in tensors.lua
        self._calls = self.lua.execute(_CALLS.encode())

    def require(self, name: str) -> Any:
        return self.lua.eval(b"require")(name.encode())

    def plan(self, context: dict[str, Any]) -> Any:
        return self._calls[b"compile"](self._table(context))

    def decode_json(self, plan: Any, body: bytes) -> bytes:
        """Typed JSON to a framed ModelInferRequest."""
        return self._call(b"decode_json", plan, body)[0]

    def decode_typed(self, plan: Any, body: bytes) -> bytes:
        """A framed PredictRequest to a framed ModelInferRequest."""
        return self._call(b"decode_typed", plan, body)[0]

    def encode_json(self, plan: Any, body: bytes) -> tuple[bytes, bytes | None]:
        """A framed ModelInferResponse to typed JSON, and the label for the access log."""
        return self._call(b"encode_json", plan, body)

    def encode_typed(self, plan: Any, body: bytes) -> tuple[bytes, bytes | None]:
        """A framed ModelInferResponse to a framed PredictResponse, and the label for the access log."""
        return self._call(b"encode_typed", plan, body)

    def stream(self, plan: Any, chunks: Iterable[bytes]) -> bytes:
        """Framed ModelStreamInferResponses, cut anyhow, to framed PredictResponses."""
        state = self._calls[b"new_stream"](plan)
        made = [self._call(b"edit_stream", state, chunk)[0] for chunk in chunks]
        self._call(b"finish_stream", state)
        return b"".join(made)

    def _call(self, name: bytes, *arguments: Any) -> tuple[bytes, bytes | None]:
        returned = self._calls[name](*arguments)
        ok, first, second = (*(returned if isinstance(returned, tuple) else (returned,)), None, None)[:3]
        if not ok:
            assert isinstance(second, bytes)
            raise Refused(first, second)
        return first, second

    def _table(self, value: Any) -> Any:
        """JSON as Envoy hands it to Lua: every number a double, every text bytes."""
        if isinstance(value, dict):
            return self.lua.table_from({k.encode(): self._table(v) for k, v in value.items()})
        if isinstance(value, list):
            return self.lua.table_from([self._table(v) for v in value])
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        return value
