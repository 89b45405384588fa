"""No loop stays interpreted for the life of a process: what LuaJIT has given up on is compiled again."""

from __future__ import annotations

import json

import pytest

from adapters.signature import Datatype, TensorSpec
from tests.lua import vectors
from tests.lua.scripts import Scripts

BIG = vectors.model([TensorSpec("x", Datatype.FP32, (3000,))], [TensorSpec("y", Datatype.FP32, (3000,))])
BODY = json.dumps({"x": [k / 7 for k in range(3000)]}).encode()

TRACES = b"""
-- Functions whose loops were compiled since the last call, by module and line.
local util, found = require("jit.util"), {}
jit.attach(function(what, number, f)
  if what == "start" then
    local info = util.funcinfo(f)
    found[info.source .. ":" .. info.linedefined] = true
  end
end, "trace")
return function()
  local names = {}
  for name in pairs(found) do
    names[#names + 1] = name
  end
  found = {}
  return table.concat(names, " ")
end
"""


@pytest.mark.parametrize("module", ["leaves_big", "json_write"])
def test_a_banned_loop_is_compiled_again_after_some_traffic(module: str) -> None:
    scripts = Scripts()
    plan = scripts.plan(BIG.context())
    scripts.lua.execute(f"jit.off(package.preload['{module}'], true)".encode())  # the flag that a ban leaves, too
    traced = scripts.lua.execute(TRACES)
    answer = vectors.framed(
        vectors.answer(BIG, [vectors.zeros(BIG.contract.outputs[0], None) + 1.5]).SerializeToString()
    )

    def traffic() -> str:
        for _ in range(20):
            scripts.decode_json(plan, BODY)
            scripts.encode_json(plan, answer)
        return bytes(traced()).decode()

    assert f"={module}:" not in traffic()
    scripts.require("loops")[b"count"](1e9)
    assert f"={module}:" in traffic()
