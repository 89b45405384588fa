-- A verified answer as the typed protobuf message (`PredictResponse`), framed.
local buffers = require("buffers")
local errors = require("errors")
local ffi = require("ffi")
local halves = require("halves")
local protobuf = require("protobuf")
local text = require("text")

local element_size = require("answer").element_size
local put_varint, varint_size = protobuf.put_varint, protobuf.varint_size

local M = {}

local out = buffers.new()

-- Bytes that one element takes in the typed message, by datatype; BYTES elements have their own length.
local ELEMENT = {
  BOOL = 1, INT8 = 1, UINT8 = 1, INT16 = 4, UINT16 = 4, FP16 = 4, BF16 = 4,
  INT32 = 4, UINT32 = 4, FP32 = 4, INT64 = 8, UINT64 = 8, FP64 = 8,
}

-- Copies `n` elements from element k of the tensor's bytes to dst; by datatype.
local function copier(width)
  return function(dst, tensor, k, n)
    ffi.copy(dst, tensor.p + tensor.at + k * width, n * width)
  end
end

local function widener(source_t, convert, target_t)
  source_t, target_t = ffi.typeof(source_t), ffi.typeof(target_t)
  return function(dst, tensor, k, n)
    local source, target = ffi.cast(source_t, tensor.p + tensor.at), ffi.cast(target_t, dst)
    for j = 0, n - 1 do
      target[j] = convert(source[k + j])
    end
  end
end

local function same(v)
  return v
end

local COPY = {
  INT8 = copier(1), UINT8 = copier(1), INT32 = copier(4), UINT32 = copier(4), FP32 = copier(4),
  INT64 = copier(8), UINT64 = copier(8), FP64 = copier(8),
  INT16 = widener("const int16_t *", same, "int32_t *"),
  UINT16 = widener("const uint16_t *", same, "uint32_t *"),
  FP16 = widener("const uint16_t *", halves.fp16_bits32, "int32_t *"),
  BF16 = widener("const uint16_t *", halves.bf16_bits32, "int32_t *"),
  BOOL = function(dst, tensor, k, n)
    local source = tensor.p + tensor.at + k
    for j = 0, n - 1 do
      dst[j] = source[j] ~= 0 and 1 or 0
    end
  end,
}

-- Bytes of one row's BYTES field from the cursor on; the elements must be text, as the field is a proto string.
local function bytes_size(field, tensor, i)
  local total = 0
  for _ = 1, tensor.count do
    local size = element_size(tensor.p, i)
    if text.utf8_end(tensor.p, i + 4, i + 4 + size) < i + 4 + size then
      errors.bad_answer("output " .. field.name .. " is not UTF-8 text, which a proto string must be; JSON answers can carry it", "UTF-8 text", "other bytes")
    end
    total = total + #field.tag + varint_size(size) + size
    i = i + 4 + size
  end
  return total
end

local function put_bytes(p, o, field, tensor, i)
  for _ = 1, tensor.count do
    local size = element_size(tensor.p, i)
    ffi.copy(p + o, field.tag, #field.tag)
    o = put_varint(p, o + #field.tag, size)
    ffi.copy(p + o, tensor.p + i + 4, size)
    o = o + size
    i = i + 4 + size
  end
  return o, i
end

-- Whether a field of fixed width is written with a length: packed lists, and UINT8 and INT8, which are `bytes`.
local function has_length(field)
  return field.repeated or field.tag == field.packed_tag
end

-- Bytes of one row of a field of fixed width. Empty ones are written too: that is legal and needs no special case.
local function fixed_size(field, tensor)
  local size = tensor.count * ELEMENT[field.datatype]
  if has_length(field) then
    return #field.packed_tag + varint_size(size) + size
  end
  return #field.tag + size
end

local function put_fixed(p, o, field, tensor, row)
  local size = tensor.count * ELEMENT[field.datatype]
  local lengthy = has_length(field)
  local tag = lengthy and field.packed_tag or field.tag
  ffi.copy(p + o, tag, #tag)
  o = o + #tag
  if lengthy then
    o = put_varint(p, o, size)
  end
  COPY[field.datatype](p + o, tensor, row * tensor.count, tensor.count)
  return o + size
end

-- The sizes of a tensor in its companion field (`y_shape`), where its shape has more than its values tell.
local function shape_size(field)
  return #field.shape_tag + varint_size(8 * field.rank) + 8 * field.rank
end

local function put_shape(p, o, field, tensor)
  ffi.copy(p + o, field.shape_tag, #field.shape_tag)
  o = put_varint(p, o + #field.shape_tag, 8 * field.rank)
  local sizes = ffi.cast("int64_t *", p + o)
  for d = 1, field.rank do
    sizes[d - 1] = tensor.dims[d]
  end
  return o + 8 * field.rank
end

-- `answer` (of answer.lua) as a framed PredictResponse.
function M.encode(plan, answer)
  local outputs, tensors = plan.outputs, answer.tensors
  local fixed = 0
  local cursors, has_bytes = {}, false
  for j = 1, #outputs do
    cursors[j] = tensors[j].at
    if outputs[j].width > 0 then
      fixed = fixed + fixed_size(outputs[j], tensors[j])
    else
      has_bytes = true
    end
    if outputs[j].shape_field then
      fixed = fixed + shape_size(outputs[j])
    end
  end
  local o = 5
  local p = out:reserve(o)
  for row = 0, answer.rows - 1 do
    local size = fixed
    if has_bytes then
      for j = 1, #outputs do
        if outputs[j].width == 0 then
          size = size + bytes_size(outputs[j], tensors[j], cursors[j])
        end
      end
    end
    p = out:reserve(o + size + 16)
    if plan.batching then
      p[o] = 10 -- predictions
      o = put_varint(p, o + 1, size)
    end
    for j = 1, #outputs do
      if outputs[j].width > 0 then
        o = put_fixed(p, o, outputs[j], tensors[j], row)
      else
        o, cursors[j] = put_bytes(p, o, outputs[j], tensors[j], cursors[j])
      end
      if outputs[j].shape_field then
        o = put_shape(p, o, outputs[j], tensors[j])
      end
    end
  end
  ffi.copy(p, protobuf.frame(o - 5), 5)
  local body = ffi.string(p, o)
  out:trim()
  return body
end

return M
