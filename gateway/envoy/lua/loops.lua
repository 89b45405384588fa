-- Keeps LuaJIT's compiler on every loop of the scripts.
--
-- LuaJIT gives up compiling a loop after some aborted traces, for the life of the process: the loop then runs interpreted,
-- many times slower. What aborts traces is chance and varied traffic. So the ban is lifted from all functions of all
-- modules, children included, whenever so many bytes have passed; a loop that is compiled is left as it is.
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
