-- A double as its shortest text that reads back as the same double, by arithmetic alone; for all but extreme ones.
--
-- Used by `digits`, which prints the others through the C library: that takes up to three renderings of 17 digits and
-- reading two of them. Here a double is scaled to 17 digits before the point as the sum of two doubles, an integer and the
-- rest (Dekker 1971, "A floating-point technique for extending the available precision"). A text of fewer digits reads
-- back as v when it is nearer to that than half the distance between doubles. The powers of ten are sums of two doubles as
-- well, so the scaled value is wrong by less than 1e-12; what is as near to the limit as a billionth of it is left to the
-- library, ties among it.
local ffi = require("ffi")

local abs, floor = math.abs, math.floor

local M = {}

-- Magnitudes that are printed here: powers of ten and products of halves of doubles stay far from the ends of their range.
M.LEAST, M.MOST = 1e-260, 1e260
-- Decimal exponents that are printed plainly, without one.
local PLAIN_FROM, PLAIN_TO = -4, 14

-- Veltkamp's constant 2^27 + 1: a double is the sum of two halves of 26 bits.
local SPLIT = 134217729
local BILLION = 1e9

local function halves_of(a)
  local high = SPLIT * a
  high = high - (high - a)
  return high, a - high
end

-- a * b as the nearest double and the rest, exactly.
local function product(a, b)
  local p = a * b
  local a_high, a_low = halves_of(a)
  local b_high, b_low = halves_of(b)
  return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low
end

-- Arrays whose index may be negative, in memory: LuaJIT does not compile tables that are half lists.
local MOST_TENS, MOST_TWOS = 280, 870
local function from_minus(most)
  local array = ffi.new("double[?]", 2 * most + 1)
  return array + most, array
end

-- 10^k = TENS[k] + RESTS[k]; the halves of TENS[k]; the double nearest to 10^k. `held` keeps the memory.
local held = {}
local TENS, RESTS, HIGH, LOW, BOUNDS
TENS, held[1] = from_minus(MOST_TENS)
RESTS, held[2] = from_minus(MOST_TENS)
HIGH, held[3] = from_minus(MOST_TENS)
LOW, held[4] = from_minus(MOST_TENS)
BOUNDS, held[5] = from_minus(MOST_TENS)
TENS[0] = 1
for k = 1, MOST_TENS do
  local p, rest = product(TENS[k - 1], 10)
  rest = rest + RESTS[k - 1] * 10
  TENS[k] = p + rest
  RESTS[k] = rest - (TENS[k] - p)
  local quotient = TENS[1 - k] / 10
  local back, more = product(quotient, 10)
  rest = ((TENS[1 - k] - back) - more + RESTS[1 - k]) / 10
  TENS[-k] = quotient + rest
  RESTS[-k] = rest - (TENS[-k] - quotient)
end
for k = -MOST_TENS, MOST_TENS do
  HIGH[k], LOW[k] = halves_of(TENS[k])
  BOUNDS[k] = tonumber("1e" .. k)
end
-- Half the distance between neighbouring doubles from 2^e on.
local DOUBT = 1e-9
local HALVES
HALVES, held[6] = from_minus(MOST_TWOS)
for e = -MOST_TWOS, MOST_TWOS do
  HALVES[e] = 2 ^ (e - 53)
end
M.held = held

local text = ffi.new("uint8_t[17]")

local function put_digits(from, x, width)
  for j = from + width - 1, from, -1 do
    local rest = floor(x / 10)
    text[j] = 48 + (x - rest * 10)
    x = rest
  end
end

-- The digits text[0..last], the first of which stands for 10^x, as plain decimals; index after it.
local function put_plain(out, o, x, last)
  local at = 0
  if x < 0 then
    out[o], out[o + 1] = 48, 46
    o = o + 2
    for _ = 1, -x - 1 do
      out[o] = 48
      o = o + 1
    end
  else
    for j = 0, x do
      out[o] = text[j]
      o = o + 1
    end
    out[o] = 46
    o = o + 1
    at = x + 1
    if at > last then
      out[o] = 48
      return o + 1
    end
  end
  for j = at, last do
    out[o] = text[j]
    o = o + 1
  end
  return o
end

-- The same with an exponent, of two digits at least.
local function put_scientific(out, o, x, last)
  out[o] = text[0]
  o = o + 1
  if last > 0 then
    out[o] = 46
    for j = 1, last do
      out[o + j] = text[j]
    end
    o = o + last + 1
  end
  out[o], out[o + 1] = 101, x < 0 and 45 or 43
  o = o + 2
  x = x < 0 and -x or x
  if x >= 100 then
    local hundreds = floor(x / 100)
    out[o] = 48 + hundreds
    o, x = o + 1, x - hundreds * 100
  end
  local tens = floor(x / 10)
  out[o], out[o + 1] = 48 + tens, 48 + x - tens * 10
  return o + 2
end

-- `v` from LEAST to below MOST, no power of two (its neighbours are not equally far), `e` its binary exponent: its text at
-- out[o] and the index after it; nil in the rare cases that this does not do.
function M.put(out, o, v, e)
  local x = floor(e * 0.30102999566398120)
  if v >= BOUNDS[x + 1] then
    x = x + 1
  end
  local k = 16 - x
  local ten, high, low = TENS[k], HIGH[k], LOW[k]
  local p = v * ten
  local v_high, v_low = halves_of(v)
  local rest = ((v_high * high - p) + v_high * low + v_low * high) + v_low * low + v * RESTS[k]
  local near = HALVES[e] * ten

  local left = floor(p / BILLION)
  local right = p - left * BILLION
  if right < 0 then
    left, right = left - 1, right + BILLION
  end
  -- Of 15, 16 or 17 digits; `off` is how far the text is from the value.
  local rounded = floor((right + rest) / 100 + 0.5) * 100
  local off = abs((right - rounded) + rest)
  if off >= near * (1 - DOUBT) then
    if off <= near * (1 + DOUBT) then
      return nil
    end
    rounded = floor((right + rest) / 10 + 0.5) * 10
    off = abs((right - rounded) + rest)
    if off >= near * (1 - DOUBT) then
      if off <= near * (1 + DOUBT) then
        return nil
      end
      rounded = floor(right + rest + 0.5)
    end
  end
  if rounded >= BILLION then
    left, rounded = left + 1, rounded - BILLION
  elseif rounded < 0 then
    left, rounded = left - 1, rounded + BILLION
  end
  if left < 1e7 or left >= 1e8 then
    return nil
  end
  put_digits(0, left, 8)
  put_digits(8, rounded, 9)
  local last = 16
  while last > 0 and text[last] == 48 do
    last = last - 1
  end
  if x < PLAIN_FROM or x > PLAIN_TO then
    return put_scientific(out, o, x, last)
  end
  return put_plain(out, o, x, last)
end

return M
