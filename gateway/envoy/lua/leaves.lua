-- Runs of JSON numbers into typed memory: the hot loops of a JSON request.
--
-- Used by `json_read` only, which loads this file twice ("leaves" for short arrays, "leaves_big" for long ones).
-- Varied small requests shape the traces that LuaJIT makes of a loop, and can make it give up on one (loops.lua); the second
-- copy has its own code and so its own fate.
--
-- Every leaf has the same form: leaf(p, i, dst, k, limit, inner) -> i, k, problem. It reads numbers separated by commas
-- from p[i] (a NUL-terminated text) into dst[k], dst[k+1], ... and stops at the first byte after a number that is not a
-- comma, or at a comma when k has reached `limit`. With `inner` > 0 the numbers come in arrays of `inner`: between those
-- "],[" is read over, so that an image of [224,224,3] costs no call per pixel. `problem` is nil, or "type" or "range"
-- (p[i] starts the bad value) or "syntax" (p[i] is the byte that cannot be there).
local bit = require("bit")
local ffi = require("ffi")
require("buffers")

local bxor, C, floor = bit.bxor, ffi.C, math.floor

local M = {}

local EXACT = 9007199254740992 -- 2^53: integers below are exact in a double
local FLOAT_LIMIT = 2 ^ 128 - 2 ^ 103 -- magnitudes from here on round to infinity in float32
local NAN, INFINITY = -(0 / 0), 1 / 0 -- 0/0 is the negative NaN on x86

local POWERS = {}
for e = 0, 22 do
  POWERS[e] = tonumber("1e" .. e) -- exact in a double up to 1e22
end

local one, other = ffi.new("float[1]"), ffi.new("float[1]")
local int_scratch = ffi.new("int64_t[1]")

-- Correctly rounded value of the number text at p[i]; the grammar has been checked (strtod alone takes hex and more).
local function exactly(p, i)
  return C.strtod(ffi.cast("const char *", p + i), nil)
end

local function skip_space(p, i)
  local c = p[i]
  while c == 32 or c == 10 or c == 13 or c == 9 do
    i = i + 1
    c = p[i]
  end
  return i
end

-- Index of the first value after "],[" at p[i]; i when something else stands there.
local function after_brackets(p, i)
  local j = i + 1
  if p[j] <= 32 then
    j = skip_space(p, j)
  end
  if p[j] ~= 44 then
    return i
  end
  j = j + 1
  if p[j] <= 32 then
    j = skip_space(p, j)
  end
  if p[j] ~= 91 then
    return i
  end
  j = j + 1
  if p[j] <= 32 then
    j = skip_space(p, j)
  end
  return j
end

-- NaN and the infinities as the strings of protobuf's JSON mapping: value, index after; nil if it is another string.
local function special(p, i)
  if p[i] ~= 34 then
    return nil
  end
  local word = ffi.string(p + i, 1)
  local j = i + 1
  while j - i < 11 and p[j] ~= 34 and p[j] >= 32 do
    j = j + 1
  end
  word = ffi.string(p + i, j - i + 1)
  if word == '"NaN"' then
    return NAN, j + 1
  elseif word == '"Infinity"' then
    return INFINITY, j + 1
  elseif word == '"-Infinity"' then
    return -INFINITY, j + 1
  end
  return nil
end

-- FP32 (`single`: dst is float *) and FP64 (dst is double *).
--
-- A decimal m * 10^e with m <= 2^53 and |e| <= 22 is one multiplication or division of exact doubles, so correctly
-- rounded. Longer mantissas for float32: if a value a little less and a little more than the approximation round to
-- the same float32, that is the answer; else strtod decides.
local function floats(p, i, dst, k, limit, inner, single)
  local edge = inner > 0 and k + inner or limit
  while true do
    local start = i
    local c = p[i]
    local negative = false
    if c == 45 then
      negative = true
      i = i + 1
      c = p[i]
    end
    local v
    local d = bxor(c, 48)
    if d > 9 then
      if negative then
        return i, k, "syntax"
      end
      v, i = special(p, start)
      if not v then
        return start, k, "type"
      end
    else
      local m, e = d, 0
      i = i + 1
      if d ~= 0 then
        d = bxor(p[i], 48)
        while d <= 9 do
          m = m * 10 + d
          i = i + 1
          d = bxor(p[i], 48)
        end
      elseif bxor(p[i], 48) <= 9 then
        return i, k, "syntax" -- a leading zero
      end
      if p[i] == 46 then
        i = i + 1
        local fraction = i
        d = bxor(p[i], 48)
        if d > 9 then
          return i, k, "syntax"
        end
        repeat
          m = m * 10 + d
          i = i + 1
          d = bxor(p[i], 48)
        until d > 9
        e = fraction - i
      end
      c = p[i]
      if c == 101 or c == 69 then
        i = i + 1
        local down = p[i] == 45
        if down or p[i] == 43 then
          i = i + 1
        end
        d = bxor(p[i], 48)
        if d > 9 then
          return i, k, "syntax"
        end
        local x = 0
        repeat
          if x < 100000 then
            x = x * 10 + d
          end
          i = i + 1
          d = bxor(p[i], 48)
        until d > 9
        e = down and e - x or e + x
      end
      if m <= EXACT and e >= -22 and e <= 22 then
        if e == 0 then
          v = m
        elseif e < 0 then
          v = m / POWERS[-e]
        else
          v = m * POWERS[e]
        end
      elseif single and m < 1e25 and e >= -22 and e <= 0 then
        v = m / POWERS[-e]
        one[0] = v * (1 - 5e-14)
        other[0] = v * (1 + 5e-14)
        if one[0] ~= other[0] then
          v = exactly(p, negative and start + 1 or start)
        end
      else
        v = exactly(p, negative and start + 1 or start)
      end
      if v >= FLOAT_LIMIT and (single or v == INFINITY) then
        return start, k, "range"
      end
      if negative then
        v = -v
      end
    end
    dst[k] = v
    k = k + 1
    c = p[i]
    if c <= 32 then
      i = skip_space(p, i)
      c = p[i]
    end
    if c ~= 44 then
      if c ~= 93 or k ~= edge or k == limit then
        return i, k
      end
      local next_array = after_brackets(p, i)
      if next_array == i then
        return i, k
      end
      i = next_array
      edge = edge + inner
    elseif k == edge then
      return i, k
    else
      i = i + 1
      if p[i] <= 32 then
        i = skip_space(p, i)
      end
    end
  end
end

function M.float32(p, i, dst, k, limit, inner)
  return floats(p, i, dst, k, limit, inner, true)
end

function M.float64(p, i, dst, k, limit, inner)
  return floats(p, i, dst, k, limit, inner, false)
end

-- 64-bit integer text p[i..stop-1] (sign and digits) as int64_t or uint64_t; nil when it does not fit.
local function wide(p, i, stop, unsigned)
  local negative = p[i] == 45
  if negative then
    i = i + 1
  end
  local u = 0ULL
  for j = i, stop - 1 do
    local d = bxor(p[j], 48)
    if u > 1844674407370955161ULL or (u == 1844674407370955161ULL and d > 5) then
      return nil
    end
    u = u * 10ULL + d
  end
  if unsigned then
    return (not negative or u == 0ULL) and u or nil
  end
  if negative then
    return u <= 9223372036854775808ULL and ffi.cast("int64_t", 0ULL - u) or nil
  end
  return u <= 9223372036854775807ULL and ffi.cast("int64_t", u) or nil
end

-- Integers of up to 32 bits between `low` and `high`; wider ones when `low` is nil (`unsigned` tells which).
-- 1.0 and 1e3 are integers too, as in protobuf's JSON mapping, and 64-bit ones may be strings.
local function integers(p, i, dst, k, limit, inner, low, high, unsigned)
  local edge = inner > 0 and k + inner or limit
  while true do
    local start = i
    local quoted = low == nil and p[i] == 34
    if quoted then
      i = i + 1
    end
    local first = i
    local c = p[i]
    local negative = c == 45
    if negative then
      i = i + 1
      c = p[i]
    end
    local d = bxor(c, 48)
    if d > 9 then
      if negative and not quoted then
        return i, k, "syntax"
      end
      return start, k, "type"
    end
    local m = d
    i = i + 1
    if d ~= 0 then
      d = bxor(p[i], 48)
      while d <= 9 do
        m = m * 10 + d
        i = i + 1
        d = bxor(p[i], 48)
      end
    elseif bxor(p[i], 48) <= 9 then
      return i, k, "syntax"
    end
    local v = negative and -m or m
    c = p[i]
    if (c == 46 or c == 101 or c == 69) and not quoted then
      local _, problem
      i, _, problem = floats(p, first, ffi.new("double[1]"), 0, 1, 0, false)
      if problem then
        return i, k, problem
      end
      v = exactly(p, first)
      if v ~= floor(v) or v >= EXACT or v <= -EXACT then
        return start, k, "type"
      end
      m = v < 0 and -v or v
    end
    if low ~= nil then
      if v < low or v > high then
        return start, k, "range"
      end
      dst[k] = v
    elseif m < 1e15 then
      if unsigned then
        if v < 0 then
          return start, k, "range"
        end
        dst[k] = v
      else
        int_scratch[0] = v
        dst[k] = int_scratch[0]
      end
    else
      local w
      if c == 46 or c == 101 or c == 69 then
        w = (unsigned and v < 0) and nil or ffi.cast(unsigned and "uint64_t" or "int64_t", v)
      else
        w = wide(p, first, i, unsigned)
      end
      if w == nil then
        return start, k, "range"
      end
      dst[k] = w
    end
    if quoted then
      if p[i] ~= 34 then
        return start, k, "type"
      end
      i = i + 1
    end
    k = k + 1
    c = p[i]
    if c <= 32 then
      i = skip_space(p, i)
      c = p[i]
    end
    if c ~= 44 then
      if c ~= 93 or k ~= edge or k == limit then
        return i, k
      end
      local next_array = after_brackets(p, i)
      if next_array == i then
        return i, k
      end
      i = next_array
      edge = edge + inner
    elseif k == edge then
      return i, k
    else
      i = i + 1
      if p[i] <= 32 then
        i = skip_space(p, i)
      end
    end
  end
end

function M.int8(p, i, dst, k, limit, inner)
  return integers(p, i, dst, k, limit, inner, -128, 127)
end
function M.int16(p, i, dst, k, limit, inner)
  return integers(p, i, dst, k, limit, inner, -32768, 32767)
end
function M.int32(p, i, dst, k, limit, inner)
  return integers(p, i, dst, k, limit, inner, -2147483648, 2147483647)
end
function M.uint8(p, i, dst, k, limit, inner)
  return integers(p, i, dst, k, limit, inner, 0, 255)
end
function M.uint16(p, i, dst, k, limit, inner)
  return integers(p, i, dst, k, limit, inner, 0, 65535)
end
function M.uint32(p, i, dst, k, limit, inner)
  return integers(p, i, dst, k, limit, inner, 0, 4294967295)
end
function M.int64(p, i, dst, k, limit, inner)
  return integers(p, i, dst, k, limit, inner, nil, nil, false)
end
function M.uint64(p, i, dst, k, limit, inner)
  return integers(p, i, dst, k, limit, inner, nil, nil, true)
end

return M
