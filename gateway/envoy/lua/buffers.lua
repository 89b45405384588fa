-- Scratch memory that lives as long as the Lua VM, so that a request allocates next to nothing.
--
-- Used by every module that writes bytes. Safe to share between requests because nothing yields between filling a
-- buffer and making a Lua string of it. Memory comes from malloc: it is not zeroed, so a generous reservation costs
-- no pages until they are written.
local ffi = require("ffi")

ffi.cdef([[
void *realloc(void *, size_t);
void free(void *);
double strtod(const char *, char **);
]])

local C = ffi.C
local max = math.max

local M = {}

-- Above this many bytes a buffer is given back after use: one 64 MB body must not keep a worker at 64 MB for ever.
M.KEEP = 8 * 1024 * 1024

local bytes_t = ffi.typeof("uint8_t *")

local Buffer = {}
Buffer.__index = Buffer

-- A buffer whose `p` (uint8_t *) is valid up to the last `reserve`.
function M.new()
  return setmetatable({ p = ffi.cast(bytes_t, nil), capacity = 0 }, Buffer)
end

-- Makes room for `size` bytes in all, keeping what is there; returns `p`, which may have moved.
function Buffer:reserve(size)
  if size > self.capacity then
    local capacity = max(size, self.capacity * 2, 4096)
    local p = C.realloc(self.p, capacity)
    if p == nil then
      error("out of memory: " .. capacity .. " bytes")
    end
    self.p = ffi.cast(bytes_t, p)
    self.capacity = capacity
  end
  return self.p
end

-- Gives an unusually large buffer back to the system.
function Buffer:trim()
  if self.capacity > M.KEEP then
    C.free(self.p)
    self.p = ffi.cast(bytes_t, nil)
    self.capacity = 0
    return true
  end
  return false
end

return M
