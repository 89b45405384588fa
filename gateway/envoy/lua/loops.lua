-- Keeps LuaJIT's compiler on every loop of the scripts.
--
-- LuaJIT gives up in two ways, both for the life of the process, and what it gave up on runs interpreted, many times slower.
-- A loop is banned after some aborted traces: the ban is lifted from all functions of all modules whenever so many bytes
-- have passed; a loop that is compiled is left as it is. And a way out of a compiled loop gets four tries to be compiled
-- too, which traffic of another shape than the first can use up (measured: an image of [224,224,3] at 20 to 80 ms after flat
-- arrays, at 2.6 ms with more tries).
require("jit.opt").start("tryside=200")

local M = {}

-- Bytes of bodies between two times; lifting takes some 3 us.
local BYTES = 65536

local modules

-- The modules' main functions, whose children are all other functions. C modules of LuaJIT itself are no Lua functions.
local function find_modules()
  modules = {}
  for _, loader in pairs(package.preload) do
    if pcall(jit.on, loader, true) then
      modules[#modules + 1] = loader
    end
  end
end

local passed = 0

-- Counts a body of `size` bytes that is about to be worked on.
function M.count(size)
  passed = passed + size
  if passed < BYTES then
    return
  end
  passed = 0
  if not modules then
    find_modules()
  end
  for k = 1, #modules do
    jit.on(modules[k], true)
  end
end

return M
