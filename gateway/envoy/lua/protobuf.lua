-- The protobuf wire format (protobuf.dev/programming-guides/encoding), without schemas.
--
-- Used by the readers and writers of typed messages and of the inference protocol. Readers return nil for malformed
-- bytes: only the caller knows whether that is the client's mistake or the server's.
local ffi = require("ffi")
local bit = require("bit")

local band, bor, rshift = bit.band, bit.bor, bit.rshift
local char, floor = string.char, math.floor

local M = {}

M.VARINT, M.FIXED64, M.LENGTH, M.GROUP, M.GROUP_END, M.FIXED32 = 0, 1, 2, 3, 4, 5

-- Deepest nesting of unknown groups that is skipped; the recursion limit of the official parsers.
local GROUP_DEPTH = 100

-- Varint at p[i], before `stop`: value, next index. Exact up to 2^53, which no tag or length may exceed anyway.
function M.varint(p, i, stop)
  local value, scale = 0, 1
  for _ = 1, 10 do
    if i >= stop then
      return nil
    end
    local b = p[i]
    i = i + 1
    if b < 128 then
      return value + b * scale, i
    end
    value = value + (b - 128) * scale
    scale = scale * 128
  end
  return nil
end
local varint = M.varint

-- Tag at p[i]: the tag (field number * 8 + wire type), next index. Nil for field number 0 and beyond 32 bits.
function M.tag(p, i, stop)
  if i < stop and p[i] < 128 then
    if p[i] < 8 then
      return nil
    end
    return p[i], i + 1
  end
  local tag, after = varint(p, i, stop)
  if not tag or tag < 8 or tag >= 4294967296 or after - i > 5 then
    return nil
  end
  return tag, after
end
local read_tag = M.tag

-- Length at p[i] and the bytes after it: index of the first byte, index after the last.
function M.span(p, i, stop)
  local size, from = varint(p, i, stop)
  if not size or size > stop - from then
    return nil
  end
  return from, from + size
end
local span = M.span

local function skip_group(p, i, stop, number, depth)
  if depth > GROUP_DEPTH then
    return nil
  end
  while true do
    local tag, after = read_tag(p, i, stop)
    if not tag then
      return nil
    end
    if tag % 8 == M.GROUP_END then
      return floor(tag / 8) == number and after or nil
    end
    i = M.skip(p, after, stop, tag, depth)
    if not i then
      return nil
    end
  end
end

-- Index after the value of an unknown field whose tag has been read.
function M.skip(p, i, stop, tag, depth)
  local wire, after = tag % 8, nil
  if wire == M.VARINT then
    local _
    _, after = varint(p, i, stop)
  elseif wire == M.LENGTH then
    local _
    _, after = span(p, i, stop)
  elseif wire == M.FIXED32 then
    after = i + 4
  elseif wire == M.FIXED64 then
    after = i + 8
  elseif wire == M.GROUP then
    after = skip_group(p, i, stop, floor(tag / 8), (depth or 0) + 1)
  end
  return after and after <= stop and after or nil
end

-- Writes a varint (0 <= value < 2^53) at p[o]; the index after it.
function M.put_varint(p, o, value)
  while value >= 128 do
    local rest = floor(value / 128)
    p[o] = value - rest * 128 + 128
    value = rest
    o = o + 1
  end
  p[o] = value
  return o + 1
end

-- Bytes that a varint takes.
function M.varint_size(value)
  local size = 1
  while value >= 128 do
    value = floor(value / 128)
    size = size + 1
  end
  return size
end

-- A varint as a string.
function M.varint_bytes(value)
  local parts = {}
  while value >= 128 do
    local rest = floor(value / 128)
    parts[#parts + 1] = char(value - rest * 128 + 128)
    value = rest
  end
  parts[#parts + 1] = char(value)
  return table.concat(parts)
end
local varint_bytes = M.varint_bytes

-- Tag of a field as a string.
function M.tag_bytes(number, wire)
  return varint_bytes(number * 8 + wire)
end

-- A length-delimited field (string, bytes, message) as a string.
function M.field(number, bytes)
  return varint_bytes(number * 8 + M.LENGTH) .. varint_bytes(#bytes) .. bytes
end

-- Five bytes in front of every gRPC message: not compressed, length in big-endian order.
function M.frame(size)
  return char(0, floor(size / 16777216) % 256, floor(size / 65536) % 256, floor(size / 256) % 256, size % 256)
end

-- Message length of the gRPC frame at p[i].
function M.frame_size(p, i)
  return p[i + 1] * 16777216 + p[i + 2] * 65536 + p[i + 3] * 256 + p[i + 4]
end

-- Varint at p[i] as an exact uint64_t (more than 64 bits are cut, as the official parsers do): value, next index.
function M.varint64(p, i, stop)
  local value, shift = 0ULL, 0
  for _ = 1, 10 do
    if i >= stop then
      return nil
    end
    local b = p[i]
    i = i + 1
    value = bor(value, bit.lshift(ffi.cast("uint64_t", band(b, 127)), shift))
    if rshift(b, 7) == 0 then
      return value, i
    end
    shift = shift + 7
  end
  return nil
end

return M
