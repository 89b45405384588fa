-- 16-bit floats: FP16 (IEEE 754 binary16) and BF16, to and from float32 bits and doubles.
--
-- Works on bit patterns: a NaN from outside must never be loaded as a Lua number before its bits are tested, because
-- LuaJIT boxes values in NaNs and would take some of them for objects.
local bit = require("bit")
local ffi = require("ffi")

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local floor, abs = math.floor, math.abs

local M = {}

local cell = ffi.new("union { float f; uint32_t u; }")

-- Largest magnitude that still rounds to a finite value.
M.FP16_LIMIT = 65520
M.FLOAT_LIMIT = 2 ^ 128 - 2 ^ 103

-- float32 bits of an FP16 pattern.
function M.fp16_bits32(h)
  local sign = lshift(band(h, 0x8000), 16)
  local exponent, fraction = band(rshift(h, 10), 31), band(h, 0x3FF)
  if exponent == 31 then
    return bor(sign, 0x7F800000, lshift(fraction, 13))
  elseif exponent == 0 then
    cell.f = fraction * 2 ^ -24
    return bor(sign, cell.u)
  end
  return bor(sign, lshift(exponent + 112, 23), lshift(fraction, 13))
end

-- float32 bits of a BF16 pattern.
function M.bf16_bits32(h)
  return lshift(h, 16)
end

-- Rounds to the nearest integer, ties to even; x >= 0.
local function nearest_even(x)
  local low = floor(x)
  local rest = x - low
  if rest > 0.5 or (rest == 0.5 and low % 2 == 1) then
    return low + 1
  end
  return low
end

-- FP16 pattern of a finite double below FP16_LIMIT in magnitude, rounded to nearest even.
function M.to_fp16(v)
  local sign = (v < 0 or 1 / v < 0) and 0x8000 or 0
  v = abs(v)
  if v < 2 ^ -14 then
    return sign + nearest_even(v * 2 ^ 24)
  end
  local exponent = -14
  local unit = 2 ^ -14
  while v >= unit * 2 do
    unit = unit * 2
    exponent = exponent + 1
  end
  -- A fraction that rounds up to 1024 carries into the exponent, which is what it should do.
  return sign + (exponent + 15) * 1024 + nearest_even((v / unit - 1) * 1024)
end

-- BF16 pattern of a finite double: to float32 first, then to nearest even.
function M.to_bf16(v)
  cell.f = v
  return M.bits32_to_bf16(cell.u)
end

-- BF16 pattern of float32 bits; nil when a finite value would become infinite. NaN stays a NaN.
function M.bits32_to_bf16(bits)
  if band(bits, 0x7F800000) == 0x7F800000 then
    local high = band(rshift(bits, 16), 0xFFFF)
    return band(bits, 0x7FFFFF) ~= 0 and bor(high, 0x40) or high
  end
  local low, high = band(bits, 0xFFFF), band(rshift(bits, 16), 0xFFFF)
  if low > 0x8000 or (low == 0x8000 and high % 2 == 1) then
    high = high + 1
  end
  return band(high, 0x7FFF) ~= 0x7F80 and high or nil
end

-- FP16 pattern of float32 bits; nil when a finite value would become infinite. NaN stays a NaN.
function M.bits32_to_fp16(bits)
  if band(bits, 0x7F800000) == 0x7F800000 then
    local sign = band(rshift(bits, 16), 0x8000)
    return band(bits, 0x7FFFFF) ~= 0 and bor(sign, 0x7E00) or bor(sign, 0x7C00)
  end
  cell.u = bits
  local v = cell.f
  return abs(v) < M.FP16_LIMIT and M.to_fp16(v) or nil
end

return M
