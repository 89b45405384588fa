-- Elements of JSON arrays that are not plain numbers: booleans, text, base64, 16-bit floats.
--
-- Used by `json_tensor`. The readers have the form of those in leaves.lua, but append to the column themselves.
local errors = require("errors")
local ffi = require("ffi")
local halves = require("halves")
local json_text = require("json_text")
local leaves = require("leaves")
local text = require("text")

local after_colon, is_key, malformed = json_text.after_colon, json_text.is_key, json_text.malformed
local skip_space, string_end, unescape = json_text.skip_space, json_text.string_end, json_text.unescape
local invalid, wrong_type = errors.invalid, json_text.wrong_type

local M = {}

-- Base64 text at p[i] (its quote) appended to the column as bytes; index after its closing quote.
local function read_base64(p, i, column, path)
  if p[i] ~= 34 then
    wrong_type(i, path, "base64 text")
  end
  local stop, escapes = string_end(i)
  local source, from, upto = p, i + 1, stop
  local plain
  if escapes then -- "\/" is legal and some encoders write it
    plain = unescape(i, stop)
    source, from, upto = ffi.cast("const uint8_t *", plain), 0, #plain
  end
  column:room((upto - from) + 4)
  local after = text.unbase64_to(column.data, column.used, source, from, upto)
  if not after then
    invalid("WRONG_TYPE", path, "expected base64 text, received something else", "base64 text", "text that is not base64")
  end
  column.used = after
  return stop + 1
end
M.read_base64 = read_base64

-- The same for `{"b64": "..."}` at p[i]; index after the object.
local function read_b64(p, i, column, path, expected)
  local start = i
  i = skip_space(i + 1)
  if p[i] ~= 34 or not is_key(i, '"b64"') then
    wrong_type(start, path, expected)
  end
  i = skip_space(read_base64(p, after_colon(i + 5), column, path))
  if p[i] ~= 125 then
    malformed(i, "'}'")
  end
  return i + 1
end

local function bool_leaf(p, i, column, k, limit)
  local dst = column.elements
  while true do
    if p[i] == 116 and p[i + 1] == 114 and p[i + 2] == 117 and p[i + 3] == 101 then
      dst[k] = 1
      i = i + 4
    elseif p[i] == 102 and p[i + 1] == 97 and p[i + 2] == 108 and p[i + 3] == 115 and p[i + 4] == 101 then
      dst[k] = 0
      i = i + 5
    else
      return i, k, "type"
    end
    k = k + 1
    i = skip_space(i)
    if p[i] ~= 44 or k == limit then
      return i, k
    end
    i = skip_space(i + 1)
  end
end

local function bytes_leaf(p, i, column, k, limit, path)
  while true do
    local at = column.used
    column:room(4)
    column.used = at + 4
    if p[i] == 34 then
      local stop, escapes = string_end(i)
      if escapes then
        local s = unescape(i, stop)
        column:room(#s)
        ffi.copy(column.data + column.used, s, #s)
        column.used = column.used + #s
      else
        local size = stop - i - 1
        column:room(size)
        ffi.copy(column.data + column.used, p + i + 1, size)
        column.used = column.used + size
      end
      i = stop + 1
    elseif p[i] == 123 then
      i = read_b64(p, i, column, path, column.field.says)
    else
      return i, k, "type"
    end
    local size = column.used - at - 4
    ffi.cast("uint32_t *", column.data + at)[0] = size
    column.count = column.count + 1
    k = k + 1
    i = skip_space(i)
    if p[i] ~= 44 or k == limit then
      return i, k
    end
    i = skip_space(i + 1)
  end
end

local HALF_CHUNK = 512
local half_values = ffi.new("double[?]", HALF_CHUNK)
local half_bits = ffi.cast("const uint32_t *", half_values)

local function half_leaf(p, i, column, k, limit)
  local dst, to_half = column.elements, column.field.datatype == "FP16" and halves.to_fp16 or halves.to_bf16
  local is_fp16 = column.field.datatype == "FP16"
  while true do
    local n = math.min(HALF_CHUNK, limit - k)
    local starts = i
    local after, read, problem = leaves.float64(p, i, half_values, 0, n, 0)
    for j = 0, read - 1 do
      local v = half_values[j]
      local h
      if v ~= v then
        h = is_fp16 and 0x7E00 or 0x7FC0
      elseif v == 1 / 0 or v == -1 / 0 then
        h = (is_fp16 and 0x7C00 or 0x7F80) + (v < 0 and 0x8000 or 0)
      elseif is_fp16 and math.abs(v) < halves.FP16_LIMIT or not is_fp16 and math.abs(v) < halves.FLOAT_LIMIT then
        h = to_half(v)
      end
      if not h then
        -- Find the value again: errors may cost more than good requests.
        for _ = 1, j do
          starts = skip_space((leaves.float64(p, starts, half_values, 0, 1, 0)) + 1)
        end
        return starts, k + j, "range"
      end
      dst[k + j] = h
    end
    k = k + read
    if problem then
      return after, k, problem
    end
    i = after
    if p[i] ~= 44 or k == limit then
      return i, k
    end
    i = skip_space(i + 1)
  end
end

M.read_b64 = read_b64

-- By datatype: read(p, i, column, k, limit, path) -> i, k, problem.
M.BY_DATATYPE = { BOOL = bool_leaf, BYTES = bytes_leaf, FP16 = half_leaf, BF16 = half_leaf }

return M
