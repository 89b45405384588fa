-- A verified answer in proto3 JSON, as Connect's JSON codec reads it: the typed message field by field.
--
-- Typed JSON (`json_write`) is for people: nested arrays, integers as numbers. Generated code reads the message instead:
-- flat arrays, 64-bit integers in quotes, bytes as base64, shapes in their own fields. Callers with large tensors take the
-- protobuf codec, so this is written for being plain, not for speed.
local answers = require("answer")
local buffers = require("buffers")
local digits = require("digits")
local ffi = require("ffi")
local put_bytes = require("json_write").put_bytes
local text = require("text")

local M = {}

local QUOTED = { INT64 = true, UINT64 = true }
local RAW = { INT8 = true, UINT8 = true }

local out = buffers.new()

-- Element k of `source` as JSON text.
local function element(field, source, k)
  local p = out:reserve(digits.LONGEST + 8)
  local value = ffi.string(p, digits[field.datatype](p, 0, source, k))
  return QUOTED[field.datatype] and '"' .. value .. '"' or value
end

-- `count` strings from byte `i` of the tensor on, and the index after them.
local function strings(tensor, i, count, parts)
  for _ = 1, count do
    local size = answers.element_size(tensor.p, i)
    local p = out:reserve(6 * size + 32)
    parts[#parts + 1] = ffi.string(p, put_bytes(p, 0, tensor.p, i + 4, i + 4 + size))
    i = i + 4 + size
  end
  return i
end

local function value_of(field, tensor, row, cursors)
  if RAW[field.datatype] then
    return text.json_string(text.base64(ffi.string(tensor.p + tensor.at + row * tensor.count, tensor.count), true))
  end
  local parts = {}
  if field.width == 0 then
    cursors[field.index] = strings(tensor, cursors[field.index], tensor.count, parts)
  else
    local source = ffi.cast(field.print_t, tensor.p + tensor.at)
    for k = row * tensor.count, (row + 1) * tensor.count - 1 do
      parts[#parts + 1] = element(field, source, k)
    end
  end
  return field.repeated and "[" .. table.concat(parts, ",") .. "]" or parts[1]
end

local function row_of(plan, answer, row, cursors)
  local parts = {}
  for j, field in ipairs(plan.outputs) do
    local tensor = answer.tensors[j]
    if tensor then
      parts[#parts + 1] = field.json_key .. ":" .. value_of(field, tensor, row, cursors)
      if field.shape_field then
        parts[#parts + 1] = text.json_string(field.shape_field.name) .. ':["' .. table.concat(tensor.dims, '","') .. '"]'
      end
    end
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- `answer` (of answer.lua) as the JSON text of the PredictResponse.
function M.encode(plan, answer)
  local cursors, rows = {}, {}
  for j, tensor in pairs(answer.tensors) do
    cursors[j] = tensor.at
  end
  for row = 0, answer.rows - 1 do
    rows[#rows + 1] = row_of(plan, answer, row, cursors)
  end
  out:trim()
  return plan.batching and '{"predictions":[' .. table.concat(rows, ",") .. "]}" or rows[1]
end

return M
