-- A verified answer as typed JSON: `{"predictions":[{...}]}`, or the output fields themselves.
--
-- Arrays are nested as the tensor's shape says. Numbers are printed straight into memory; the room they can take at most
-- is reserved once per tensor and row, so nothing is checked while printing.
local element_size = require("answer").element_size
local buffers = require("buffers")
local digits = require("digits")
local ffi = require("ffi")
local text = require("text")

local put_text = digits.put_text

local M = {}

local out = buffers.new()

local ESCAPED = {}
for c = 0, 31 do
  ESCAPED[c] = string.format("\\u%04x", c)
end
ESCAPED[8], ESCAPED[9], ESCAPED[10], ESCAPED[12], ESCAPED[13] = "\\b", "\\t", "\\n", "\\f", "\\r"
ESCAPED[34], ESCAPED[92] = '\\"', "\\\\"

-- Bytes src[i..stop-1] as JSON: a string when they are UTF-8, else {"b64": ...}. Needs 6 * (stop - i) + 16 bytes.
local function put_bytes(p, o, src, i, stop)
  if text.utf8_end(src, i, stop) < stop then
    o = put_text(p, o, '{"b64":"')
    o = text.base64_to(p, o, src + i, stop - i, true)
    return put_text(p, o, '"}')
  end
  p[o] = 34
  o = o + 1
  for j = i, stop - 1 do
    local c = src[j]
    local escaped = ESCAPED[c]
    if escaped then
      o = put_text(p, o, escaped)
    else
      p[o] = c
      o = o + 1
    end
  end
  p[o] = 34
  return o + 1
end
M.put_bytes = put_bytes

-- Elements source[k..k+n-1] with commas between; `put` is the datatype's writer.
local function put_run(p, o, source, k, n, put)
  o = put(p, o, source, k)
  for j = k + 1, k + n - 1 do
    p[o] = 44
    o = put(p, o + 1, source, j)
  end
  return o
end

-- Nested brackets around runs; `d` counts dimensions from 1. Returns o and the index of the next element.
local function put_nested(p, o, source, k, dims, d, put)
  p[o] = 91
  o = o + 1
  local n = dims[d]
  if d == #dims then
    if n > 0 then
      o = put_run(p, o, source, k, n, put)
    end
    k = k + n
  else
    for j = 1, n do
      if j > 1 then
        p[o] = 44
        o = o + 1
      end
      o, k = put_nested(p, o, source, k, dims, d + 1, put)
    end
  end
  p[o] = 93
  return o + 1, k
end

-- Brackets and commas that `dims` need at most.
local function brackets(dims)
  local total, arrays = 2, 1
  for d = 1, #dims - 1 do
    arrays = arrays * dims[d]
    total = total + arrays * 3
  end
  return total
end

-- The same for BYTES, whose elements are found by walking; `i` is the cursor in the tensor's bytes.
local function put_nested_bytes(o, tensor, i, dims, d)
  local p
  if d > #dims then
    local size = element_size(tensor.p, i)
    p = out:reserve(o + 6 * size + 32)
    return put_bytes(p, o, tensor.p, i + 4, i + 4 + size), i + 4 + size
  end
  p = out:reserve(o + 32)
  p[o] = 91
  o = o + 1
  for j = 1, dims[d] do
    if j > 1 then
      out.p[o] = 44
      o = o + 1
    end
    o, i = put_nested_bytes(o, tensor, i, dims, d + 1)
  end
  p = out:reserve(o + 32)
  p[o] = 93
  return o + 1, i
end

local function put_row(o, plan, tensors, row, cursors)
  local outputs = plan.outputs
  local p = out:reserve(o + 32)
  p[o] = 123
  o = o + 1
  for j = 1, #outputs do
    local field, tensor = outputs[j], tensors[j]
    p = out:reserve(o + #field.json_key + 32)
    if j > 1 then
      p[o] = 44
      o = o + 1
    end
    o = put_text(p, o, field.json_key)
    p[o] = 58
    o = o + 1
    if field.width == 0 then
      o, cursors[j] = put_nested_bytes(o, tensor, cursors[j], tensor.dims, 1)
    else
      local put = digits[field.datatype]
      local source, k = tensor.source, row * tensor.count
      p = out:reserve(o + tensor.count * (digits.LONGEST + 1) + brackets(tensor.dims) + 32)
      if field.rank == 0 then
        o = put(p, o, source, k)
      else
        o = put_nested(p, o, source, k, tensor.dims, 1, put)
      end
    end
  end
  p = out:reserve(o + 32)
  p[o] = 125
  return o + 1
end

-- `answer` (of answer.lua) as the JSON text of the response.
function M.encode(plan, answer)
  local tensors, cursors = answer.tensors, {}
  for j, field in ipairs(plan.outputs) do
    local tensor = tensors[j]
    cursors[j] = tensor.at
    if field.width > 0 then
      tensor.source = ffi.cast(field.print_t, tensor.p + tensor.at)
    end
  end
  local o
  if plan.batching then
    o = put_text(out:reserve(64), 0, '{"predictions":[')
    for row = 0, answer.rows - 1 do
      if row > 0 then
        out:reserve(o + 32)[o] = 44
        o = o + 1
      end
      o = put_row(o, plan, tensors, row, cursors)
    end
    o = put_text(out:reserve(o + 32), o, "]}")
  else
    o = put_row(0, plan, tensors, 0, cursors)
  end
  local body = ffi.string(out.p, o)
  out:trim()
  return body
end

return M
