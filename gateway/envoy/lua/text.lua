-- Text as HTTP, JSON and gRPC metadata carry it: UTF-8 checks, JSON strings, base64, percent encoding.
--
-- Pure functions, used on error paths and for BYTES tensors; numbers have modules of their own.
local ffi = require("ffi")
local bit = require("bit")

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local byte, char, format, gsub = string.byte, string.char, string.format, string.gsub

local M = {}

-- Index of the first byte that is not well-formed UTF-8 in p[i..stop-1], or `stop` (Unicode 15, table 3-7).
function M.utf8_end(p, i, stop)
  while i < stop do
    local c = p[i]
    if c < 0x80 then
      i = i + 1
    else
      local low, high, more = 0x80, 0xBF, 0
      if c >= 0xC2 and c <= 0xDF then
        more = 1
      elseif c >= 0xE0 and c <= 0xEF then
        more = 2
        if c == 0xE0 then low = 0xA0 elseif c == 0xED then high = 0x9F end
      elseif c >= 0xF0 and c <= 0xF4 then
        more = 3
        if c == 0xF0 then low = 0x90 elseif c == 0xF4 then high = 0x8F end
      end
      if more == 0 or i + more >= stop or p[i + 1] < low or p[i + 1] > high then
        return i
      end
      for j = 2, more do
        if p[i + j] < 0x80 or p[i + j] > 0xBF then
          return i
        end
      end
      i = i + 1 + more
    end
  end
  return stop
end

-- `s` with every byte that is not part of well-formed UTF-8 replaced by U+FFFD.
function M.to_utf8(s)
  local p, n = ffi.cast("const uint8_t *", s), #s
  local good = M.utf8_end(p, 0, n)
  if good == n then
    return s
  end
  local parts, from = {}, 0
  while true do
    parts[#parts + 1] = ffi.string(p + from, good - from)
    if good >= n then
      return table.concat(parts)
    end
    parts[#parts + 1] = "\239\191\189"
    from = good + 1
    good = M.utf8_end(p, from, n)
  end
end

-- The UTF-8 bytes of a code point.
function M.utf8_char(code)
  if code < 0x80 then
    return char(code)
  elseif code < 0x800 then
    return char(bor(0xC0, rshift(code, 6)), bor(0x80, band(code, 0x3F)))
  elseif code < 0x10000 then
    return char(bor(0xE0, rshift(code, 12)), bor(0x80, band(rshift(code, 6), 0x3F)), bor(0x80, band(code, 0x3F)))
  end
  return char(
    bor(0xF0, rshift(code, 18)),
    bor(0x80, band(rshift(code, 12), 0x3F)),
    bor(0x80, band(rshift(code, 6), 0x3F)),
    bor(0x80, band(code, 0x3F))
  )
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escape(c)
  return ESCAPES[c] or format("\\u%04x", byte(c))
end

-- `s` (UTF-8) as a JSON string with its quotes.
function M.json_string(s)
  return '"' .. gsub(s, '[%c"\\]', escape) .. '"'
end

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local ENCODE, DECODE = {}, {}
for i = 0, 63 do
  ENCODE[i] = byte(ALPHABET, i + 1)
end
for i = 0, 255 do
  DECODE[i] = -1
end
for i = 0, 63 do
  DECODE[ENCODE[i]] = i
end
DECODE[byte("-")], DECODE[byte("_")] = 62, 63

-- Writes base64 of p[0..n-1] at out[o..]; returns the index after it. `padded` adds "=" up to a multiple of four.
function M.base64_to(out, o, p, n, padded)
  local i = 0
  while i < n do
    local a, b, c = p[i], i + 1 < n and p[i + 1] or 0, i + 2 < n and p[i + 2] or 0
    local left = n - i
    out[o] = ENCODE[rshift(a, 2)]
    out[o + 1] = ENCODE[bor(lshift(band(a, 3), 4), rshift(b, 4))]
    o = o + 2
    if left > 1 then
      out[o] = ENCODE[bor(lshift(band(b, 15), 2), rshift(c, 6))]
      o = o + 1
    elseif padded then
      out[o] = 61
      o = o + 1
    end
    if left > 2 then
      out[o] = ENCODE[band(c, 63)]
      o = o + 1
    elseif padded then
      out[o] = 61
      o = o + 1
    end
    i = i + 3
  end
  return o
end

-- base64 of a Lua string, without padding unless asked for: as gRPC wants binary metadata.
function M.base64(s, padded)
  local n = #s
  local out = ffi.new("uint8_t[?]", math.floor((n + 2) / 3) * 4 + 1)
  return ffi.string(out, M.base64_to(out, 0, ffi.cast("const uint8_t *", s), n, padded))
end

-- Decodes base64 text p[i..stop-1] (both alphabets, padding optional) to out[o..]; the index after it, or nil.
function M.unbase64_to(out, o, p, i, stop)
  local n = stop - i
  if n % 4 == 0 and n > 0 and p[stop - 1] == 61 then
    stop = stop - 1
    if p[stop - 1] == 61 then
      stop = stop - 1
    end
  end
  n = stop - i
  if n % 4 == 1 then
    return nil
  end
  while i < stop do
    local a, b = DECODE[p[i]], DECODE[p[i + 1]]
    local c = i + 2 < stop and DECODE[p[i + 2]] or 0
    local d = i + 3 < stop and DECODE[p[i + 3]] or 0
    if a < 0 or b < 0 or c < 0 or d < 0 then
      return nil
    end
    out[o] = bor(lshift(a, 2), rshift(b, 4))
    o = o + 1
    if i + 2 < stop then
      out[o] = band(bor(lshift(b, 4), rshift(c, 2)), 255)
      o = o + 1
    end
    if i + 3 < stop then
      out[o] = band(bor(lshift(c, 6), d), 255)
      o = o + 1
    end
    i = i + 4
  end
  return o
end

-- Percent encoding of grpc-message: everything outside printable ASCII, and "%" itself.
function M.percent(s)
  return (gsub(s, "[^ -$&-~]", function(c)
    return format("%%%02X", byte(c))
  end))
end

-- Undoes percent encoding; a "%" that starts no escape stays as it is.
function M.unpercent(s)
  return (gsub(s, "%%(%x%x)", function(hex)
    return char(tonumber(hex, 16))
  end))
end

return M
