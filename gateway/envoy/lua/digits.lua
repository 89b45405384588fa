-- Numbers as JSON text, written straight into memory: shortest floats, exact integers.
--
-- Used by `json_write` and for labels. Each writer has the form put(out, o, src, k) -> o: element k of `src` as text at
-- out[o], and the index after it. Floats from servers are looked at as bits first: loading a NaN with a payload as a
-- number would corrupt LuaJIT, which boxes its values in NaNs.
local bit = require("bit")
local ffi = require("ffi")
local doubles = require("doubles")
local halves = require("halves")

local band, rshift = bit.band, bit.rshift
local floor, format = math.floor, string.format

local M = {}

-- Longest text of one element, any datatype: "-1.7976931348623157e+308" is 24.
M.LONGEST = 26

local POWERS, TENS = {}, {}
for e = 0, 22 do
  POWERS[e] = tonumber("1e" .. e)
end
for e = -46, 39 do
  TENS[e] = tonumber("1e" .. e)
end

local union = ffi.new("union { float f; uint32_t u; }")
local single = ffi.new("float[1]")

local function put_text(out, o, s)
  ffi.copy(out + o, s, #s)
  return o + #s
end
M.put_text = put_text

-- A whole number, 0 <= x < 2^53.
local function put_whole(out, o, x)
  local size, ten = 1, 10
  while x >= ten do
    size = size + 1
    ten = ten * 10
  end
  for j = o + size - 1, o, -1 do
    local rest = floor(x / 10)
    out[j] = 48 + (x - rest * 10)
    x = rest
  end
  return o + size
end
M.put_whole = put_whole

-- The same with leading zeros up to `width` digits.
local function put_padded(out, o, x, width)
  for j = o + width - 1, o, -1 do
    local rest = floor(x / 10)
    out[j] = 48 + (x - rest * 10)
    x = rest
  end
  return o + width
end

-- NaN, infinities as the strings of protobuf's JSON mapping.
local function put_special(out, o, nan, negative)
  return put_text(out, o, nan and '"NaN"' or negative and '"-Infinity"' or '"Infinity"')
end

-- Text of a printf rendering, with ".0" where it would read as an integer.
local function put_rendered(out, o, s)
  o = put_text(out, o, s)
  if not s:find("[.e]") then
    o = put_text(out, o, ".0")
  end
  return o
end

-- A positive float32 of extreme size: exact through the C library's digits.
local function put_extreme(out, o, v)
  for digits = 6, 8 do
    local s = format("%." .. digits .. "g", v)
    single[0] = tonumber(s)
    if single[0] == v then
      return put_rendered(out, o, s)
    end
  end
  return put_rendered(out, o, format("%.9g", v))
end

-- c * 10^-k with c a whole number of at most 9 digits: plain digits, or an exponent when that is shorter to read.
local function put_decimal(out, o, c, k)
  while k > 0 and c % 10 == 0 do
    c = c / 10
    k = k - 1
  end
  if k <= 0 then
    if k < -6 then
      local size, ten = 1, 10
      while c >= ten do
        size = size + 1
        ten = ten * 10
      end
      return put_rendered(out, o, format("%." .. size .. "g", c * POWERS[-k]))
    end
    o = put_whole(out, o, c * POWERS[-k])
    out[o], out[o + 1] = 46, 48
    return o + 2
  end
  if k > 14 then
    return put_rendered(out, o, format("%.9g", c / POWERS[k]))
  end
  local whole = floor(c / POWERS[k])
  o = put_whole(out, o, whole)
  out[o] = 46
  return put_padded(out, o + 1, c - whole * POWERS[k], k)
end

-- float32 given by its bits: the shortest of 6 to 9 digits that reads back as the same float32.
local function put_float_bits(out, o, bits)
  local exponent = band(rshift(bits, 23), 255)
  local negative = bits >= 2147483648 or bits < 0
  if exponent == 255 then
    return put_special(out, o, band(bits, 0x7FFFFF) ~= 0, negative)
  end
  if negative then
    out[o] = 45
    o = o + 1
  end
  union.u = band(bits, 0x7FFFFFFF)
  local v = union.f
  if v == 0 then
    out[o], out[o + 1], out[o + 2] = 48, 46, 48
    return o + 3
  end
  local magnitude = floor((exponent - 127) * 0.30102999566398120)
  if exponent == 0 then
    return put_extreme(out, o, v)
  end
  if v >= TENS[magnitude + 1] then
    magnitude = magnitude + 1
  end
  for digits = 6, 9 do
    local k = digits - 1 - magnitude
    if k > 22 or k < -22 then
      return put_extreme(out, o, v)
    end
    local c, back
    if k >= 0 then
      c = floor(v * POWERS[k] + 0.5)
      back = c / POWERS[k]
    else
      c = floor(v / POWERS[-k] + 0.5)
      back = c * POWERS[-k]
    end
    single[0] = back
    if single[0] == v or digits == 9 then
      return put_decimal(out, o, c, k)
    end
  end
  return o
end

-- `src` is const uint32_t *.
function M.FP32(out, o, src, k)
  return put_float_bits(out, o, src[k])
end

-- `src` is const uint16_t *.
function M.FP16(out, o, src, k)
  return put_float_bits(out, o, halves.fp16_bits32(src[k]))
end

-- `src` is const uint16_t *.
function M.BF16(out, o, src, k)
  return put_float_bits(out, o, halves.bf16_bits32(src[k]))
end

-- `src` is const uint32_t *, two per element (low half first).
function M.FP64(out, o, src, k)
  local low, high = src[2 * k], src[2 * k + 1]
  if band(high, 0x7FF00000) == 0x7FF00000 then
    return put_special(out, o, band(high, 0xFFFFF) ~= 0 or low ~= 0, high >= 2147483648)
  end
  local v = ffi.cast("const double *", src)[k]
  if v == 0 then
    return put_text(out, o, high >= 2147483648 and "-0.0" or "0.0")
  end
  local size = v < 0 and -v or v
  if size >= doubles.LEAST and size < doubles.MOST then
    local sign = v < 0 and 1 or 0
    out[o] = 45 -- written over where there is none
    local after
    if size < 1e15 and floor(size) == size then
      after = put_whole(out, o + sign, size)
      out[after], out[after + 1] = 46, 48
      return after + 2
    elseif low ~= 0 or band(high, 0xFFFFF) ~= 0 then
      after = doubles.put(out, o + sign, size, band(rshift(high, 20), 2047) - 1023)
    end
    if after then
      return after
    end
  end
  local s = format("%.15g", v)
  if tonumber(s) ~= v then
    s = format("%.16g", v)
    if tonumber(s) ~= v then
      s = format("%.17g", v)
    end
  end
  return put_rendered(out, o, s)
end

local function put_small(out, o, src, k)
  local v = src[k]
  if v < 0 then
    out[o] = 45
    return put_whole(out, o + 1, -v)
  end
  return put_whole(out, o, v)
end

M.INT8, M.INT16, M.INT32 = put_small, put_small, put_small
M.UINT8, M.UINT16, M.UINT32 = put_small, put_small, put_small

local function put_uint64(out, o, u)
  if u < 9007199254740992ULL then
    return put_whole(out, o, tonumber(u))
  end
  local high = u / 1000000000ULL
  o = put_whole(out, o, tonumber(high))
  return put_padded(out, o, tonumber(u - high * 1000000000ULL), 9)
end

-- `src` is const uint64_t *.
function M.UINT64(out, o, src, k)
  return put_uint64(out, o, src[k])
end

-- `src` is const int64_t *.
function M.INT64(out, o, src, k)
  local v = src[k]
  if v < 0 then
    out[o] = 45
    return put_uint64(out, o + 1, 0ULL - ffi.cast("uint64_t", v))
  end
  return put_uint64(out, o, ffi.cast("uint64_t", v))
end

-- `src` is const uint8_t *.
function M.BOOL(out, o, src, k)
  return put_text(out, o, src[k] ~= 0 and "true" or "false")
end

return M
