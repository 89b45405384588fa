-- InferTensorContents as the raw bytes of a tensor: for servers that answer in `contents` (MLServer among them).
--
-- Used by `answer`. Whatever a protobuf parser accepts is accepted: packed, unpacked and split lists, unknown fields. A
-- value that the datatype cannot hold is the server's mistake: `contents` has one list for INT8, INT16 and INT32.
local bit = require("bit")
local buffers = require("buffers")
local errors = require("errors")
local ffi = require("ffi")
local protobuf = require("protobuf")

local bad = errors.bad_answer
local band, tobit = bit.band, bit.tobit
local floor = math.floor
local read_tag, skip, span, varint64 = protobuf.tag, protobuf.skip, protobuf.span, protobuf.varint64

local M = {}

-- Field of InferTensorContents, its wire type, and for narrow integers what they can hold. 16-bit floats have none.
local LISTS = {
  BOOL = { number = 1, wire = protobuf.VARINT },
  INT8 = { number = 2, wire = protobuf.VARINT, signed = true, low = -128, high = 127 },
  INT16 = { number = 2, wire = protobuf.VARINT, signed = true, low = -32768, high = 32767 },
  INT32 = { number = 2, wire = protobuf.VARINT, signed = true, low = -2147483648, high = 2147483647 },
  INT64 = { number = 3, wire = protobuf.VARINT, wide = true },
  UINT8 = { number = 4, wire = protobuf.VARINT, low = 0, high = 255 },
  UINT16 = { number = 4, wire = protobuf.VARINT, low = 0, high = 65535 },
  UINT32 = { number = 4, wire = protobuf.VARINT, low = 0, high = 4294967295 },
  UINT64 = { number = 5, wire = protobuf.VARINT, wide = true },
  FP32 = { number = 6, wire = protobuf.FIXED32 },
  FP64 = { number = 7, wire = protobuf.FIXED64 },
  BYTES = { number = 8, wire = protobuf.LENGTH },
}

local out = buffers.new()

local function malformed(field)
  bad("it is not valid protobuf: contents of output " .. field.name, "a ModelInferResponse", "contents of output " .. field.name)
end

-- Varint at p[i] as a number of 32 bits, cut as protobuf's parsers cut it; the index after it.
local function varint32(p, i, stop, signed)
  local value = p[i]
  if value < 128 then
    return value, i + 1
  end
  local wide, after = varint64(p, i, stop)
  if not wide then
    return nil
  end
  value = tonumber(band(wide, 0xFFFFFFFFULL))
  return signed and tobit(value) or value, after
end

-- Varints p[i..stop-1] as elements from `o` of the buffer on; index of the byte after them.
local function put_varints(p, i, stop, o, field, list)
  local k = o / field.width
  local dst = ffi.cast(field.pointer_t, out:reserve(o + (stop - i) * field.width))
  local low, high = list.low, list.high
  while i < stop do
    local value
    if low then
      value, i = varint32(p, i, stop, list.signed)
    else
      value, i = varint64(p, i, stop)
    end
    if not value then
      malformed(field)
    elseif low and (value < low or value > high) then
      bad("output " .. field.name .. " has the value " .. value .. ", which is no " .. field.datatype, field.range, tostring(value))
    elseif list.number == 1 then
      value = value ~= 0ULL and 1 or 0
    end
    dst[k] = value
    k = k + 1
  end
  return k * field.width
end

local function put_text(p, i, stop, o)
  local size = stop - i
  local dst = out:reserve(o + 4 + size)
  ffi.cast("uint32_t *", dst + o)[0] = size
  ffi.copy(dst + o + 4, p + i, size)
  return o + 4 + size
end

-- One occurrence of the list, p[i..stop-1], packed (or text) or a single element.
local function put(p, i, stop, o, field, list)
  if list.wire == protobuf.VARINT then
    return put_varints(p, i, stop, o, field, list)
  elseif list.wire == protobuf.LENGTH then
    return put_text(p, i, stop, o)
  end
  local size = stop - i
  if size % field.width ~= 0 then
    malformed(field)
  end
  ffi.copy(out:reserve(o + size) + o, p + i, size)
  return o + size
end

-- The list's elements in InferTensorContents p[i..stop-1], from `o` of the buffer on; index of the byte after them.
local function put_all(p, i, stop, o, field, list)
  while i < stop do
    local tag, after = read_tag(p, i, stop)
    local upto = tag and skip(p, after, stop, tag)
    if not upto then
      malformed(field)
    end
    if floor(tag / 8) == list.number then
      local wire = tag % 8
      if wire == protobuf.LENGTH then
        o = put(p, (span(p, after, stop)), upto, o, field, list)
      elseif wire == list.wire then
        o = put(p, after, upto, o, field, list)
      end
    end
    i = upto
  end
  return o
end

-- The tensor in InferTensorContents as a Lua string of raw bytes. `spans`: where the message's parts begin and end, one
-- after the other; protobuf merges a message that is there several times.
function M.raw(p, spans, field)
  local list = LISTS[field.datatype]
  local o = 0
  for k = 1, #spans, 2 do
    if list then
      o = put_all(p, spans[k], spans[k + 1], o, field, list)
    elseif spans[k] < spans[k + 1] then
      bad(
        "output " .. field.name .. " of datatype " .. field.datatype .. " is not in raw_output_contents, and contents cannot hold it",
        "raw_output_contents", "contents"
      )
    end
  end
  local raw = ffi.string(out:reserve(o), o)
  out:trim()
  return raw
end

return M
