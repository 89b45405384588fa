-- Typed JSON to a ModelInferRequest: `{"instances":[{...}]}`, or the fields themselves for a model that does not batch.
--
-- Strict: unknown fields, duplicate keys, missing fields, wrong counts, wrong types and anything that is not JSON are
-- errors with the path of the field. Never builds general JSON values: depth is bounded by the declared rank, so deep
-- nesting costs nothing.
local bit = require("bit")
local errors = require("errors")
local ffi = require("ffi")
local halves = require("halves")
local leaves = require("leaves")
local leaves_big = require("leaves_big")
local request = require("request")
local text = require("text")

local bxor = bit.bxor
local invalid = errors.invalid

local M = {}

-- From this many elements on, arrays go through the copy of the loops that small requests never touch.
local BIG = 256
-- Elements read between two growths of a column whose length is not known.
local CHUNK = 4096
-- Longer keys are unknown fields; bounds what an error repeats.
local LONGEST_KEY = 4096

local LEAVES = {
  FP32 = "float32", FP64 = "float64", INT8 = "int8", INT16 = "int16", INT32 = "int32", INT64 = "int64",
  UINT8 = "uint8", UINT16 = "uint16", UINT32 = "uint32", UINT64 = "uint64",
}

-- The text being read. Module level, because closures per request would cost more than the reading; `held` keeps the
-- Lua string alive while only the pointer is used.
local p, held, plan, row

local function skip_space(i)
  local c = p[i]
  while c == 32 or c == 10 or c == 13 or c == 9 do
    i = i + 1
    c = p[i]
  end
  return i
end

local function show(i)
  if i >= #held then
    return "the end of the body"
  end
  local c = p[i]
  if c >= 33 and c <= 126 then
    return "'" .. string.char(c) .. "'"
  end
  return string.format("byte 0x%02x", c)
end

local function malformed(i, expected)
  local received = show(i)
  invalid("MALFORMED_JSON", "", "byte " .. i .. " of the JSON body: expected " .. expected .. ", received " .. received, expected, received)
end

-- The start of the value at p[i], for messages.
local function preview(i)
  local j = i
  while j < #held and j - i < 32 and p[j] ~= 44 and p[j] ~= 93 and p[j] ~= 125 and p[j] >= 32 do
    j = j + 1
  end
  local shown = text.to_utf8(held:sub(i + 1, j))
  if p[i] == 123 then
    return "an object"
  elseif p[i] == 91 then
    return "an array"
  end
  return shown
end

local function is_value(c)
  return c == 34 or c == 123 or c == 91 or c == 45 or c == 116 or c == 102 or c == 110 or bxor(c, 48) <= 9
end

-- Something that is not the datatype's JSON stands at p[i].
local function wrong_type(i, path, expected)
  if not is_value(p[i]) then
    malformed(i, expected)
  end
  local received = preview(i)
  invalid("WRONG_TYPE", path, "expected " .. expected .. ", received " .. received, expected, received)
end

-- String at p[i] (its quote): index of its closing quote, whether it has escapes.
local function string_end(i)
  local j = i + 1
  local escapes, high = false, false
  while true do
    local c = p[j]
    if c == 34 then
      break
    elseif c == 92 then
      escapes = true
      j = j + 1
      if p[j] < 32 then
        malformed(j, "an escape")
      end
    elseif c < 32 then
      malformed(j, j >= #held and "'\"'" or "no control character in a string")
    elseif c >= 128 then
      high = true
    end
    j = j + 1
  end
  if high then
    local bad = text.utf8_end(p, i + 1, j)
    if bad < j then
      malformed(bad, "UTF-8")
    end
  end
  return j, escapes
end

local SIMPLE = { [34] = '"', [92] = "\\", [47] = "/", [98] = "\b", [102] = "\f", [110] = "\n", [114] = "\r", [116] = "\t" }

local function hex4(i)
  local digits = held:match("^%x%x%x%x", i + 1)
  if not digits then
    malformed(i, "four hexadecimal digits")
  end
  return tonumber(digits, 16)
end

-- Value of a string with escapes; p[i] is its opening quote, p[stop] the closing one.
local function unescape(i, stop)
  local parts = {}
  local from = i + 1
  local j = from
  while j < stop do
    if p[j] == 92 then
      parts[#parts + 1] = ffi.string(p + from, j - from)
      local c = p[j + 1]
      if SIMPLE[c] then
        parts[#parts + 1] = SIMPLE[c]
        j = j + 2
      elseif c == 117 then
        local code = hex4(j + 2)
        local after = j + 6
        if code >= 0xDC00 and code <= 0xDFFF then
          malformed(j, "no lone surrogate")
        elseif code >= 0xD800 and code <= 0xDBFF then
          if p[after] ~= 92 or p[after + 1] ~= 117 then
            malformed(j, "no lone surrogate")
          end
          local low = hex4(after + 2)
          if low < 0xDC00 or low > 0xDFFF then
            malformed(j, "no lone surrogate")
          end
          code = 0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00)
          after = after + 6
        end
        parts[#parts + 1] = text.utf8_char(code)
        j = after
      else
        malformed(j + 1, "an escape")
      end
      from = j
    else
      j = j + 1
    end
  end
  parts[#parts + 1] = ffi.string(p + from, stop - from)
  return table.concat(parts)
end

-- String at p[i] as a Lua string, index after it.
local function read_string(i)
  local stop, escapes = string_end(i)
  return escapes and unescape(i, stop) or ffi.string(p + i + 1, stop - i - 1), stop + 1
end

-- Whether p[i..] is exactly `key` (with its quotes); no string is made.
local function is_key(i, key)
  for j = 0, #key - 1 do
    if p[i + j] ~= key:byte(j + 1) then
      return false
    end
  end
  return true
end

local function read_key(i)
  if p[i] ~= 34 then
    malformed(i, "a field name in quotes")
  end
  local key, after = read_string(i)
  if #key > LONGEST_KEY then
    key = text.to_utf8(key:sub(1, 64)) .. "..."
  end
  return key, after
end

local function after_colon(i)
  i = skip_space(i)
  if p[i] ~= 58 then
    malformed(i, "':'")
  end
  return skip_space(i + 1)
end

-- Bytes of `{"b64": "..."}` at p[i] appended to the column; index after the object.
local function read_b64(i, column, path, expected)
  local start = i
  i = skip_space(i + 1)
  if p[i] ~= 34 or not is_key(i, '"b64"') then
    wrong_type(start, path, expected)
  end
  i = after_colon(i + 5)
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
  i = skip_space(stop + 1)
  if p[i] ~= 125 then
    malformed(i, "'}'")
  end
  return i + 1
end

-- The leaves that are not numbers have the same form as those in leaves.lua, but append to the column themselves.

local function bool_leaf(i, column, k, limit)
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

local function bytes_leaf(i, column, k, limit, path)
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
      i = read_b64(i, column, path, column.field.says)
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

local function half_leaf(i, column, k, limit)
  local dst, to_half = column.elements, column.field.datatype == "FP16" and halves.to_fp16 or halves.to_bf16
  local is_fp16 = column.field.datatype == "FP16"
  while true do
    local n = math.min(HALF_CHUNK, limit - k)
    local starts = i
    local after, read, problem = leaves.float64(p, i, half_values, 0, n)
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
          starts = skip_space((leaves.float64(p, starts, half_values, 0, 1)) + 1)
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

local function leaf(i, column, k, limit, path, big)
  local datatype = column.field.datatype
  local name = LEAVES[datatype]
  if name then
    return (big and leaves_big or leaves)[name](p, i, column.elements, k, limit)
  elseif datatype == "BYTES" then
    return bytes_leaf(i, column, k, limit, path)
  elseif datatype == "BOOL" then
    return bool_leaf(i, column, k, limit)
  end
  return half_leaf(i, column, k, limit)
end

-- Throws what a leaf complained about. `inside` is the index within the innermost array, or nil.
local function complain(i, path, problem, field, inside)
  if inside then
    path = path .. "[" .. inside .. "]"
  end
  if problem == "type" then
    wrong_type(i, path, field.says)
  elseif problem == "range" then
    local received = preview(i)
    invalid("OUT_OF_RANGE", path, "expected " .. field.range .. ", received " .. received, field.range, received)
  end
  malformed(i, "a number")
end

-- How many values the array has whose values at p[i] (a comma) go on after `read` of them. Strings are skipped whole.
local function count_on(i, read)
  local depth = 0
  while i < #held do
    local c = p[i]
    if c == 34 then
      i = string_end(i)
    elseif c == 91 or c == 123 then
      depth = depth + 1
    elseif c == 93 or c == 125 then
      if depth == 0 then
        return read
      end
      depth = depth - 1
    elseif c == 44 and depth == 0 then
      read = read + 1
    end
    i = i + 1
  end
  return read
end

-- Array of values at p[i] (after its bracket and spaces, not empty): index of "]", number of values.
-- `want` is the number there must be, or nil.
local function read_leaf_array(i, column, path, want)
  local field = column.field
  local width = field.width
  local first = width > 0 and column.used / width or column.count
  local k = first
  local limit
  local big = false
  if want and want >= BIG then
    big = true
  elseif not want and #held - i > BIG * 4 then
    big = true
  end
  if big then
    leaves_big.reenable()
  end
  while true do
    limit = want and first + want or k + CHUNK
    if width > 0 then
      column:room((limit - k) * width)
    end
    local problem
    i, k, problem = leaf(i, column, k, limit, path, big)
    if width > 0 then
      column.used = k * width
    end
    if problem then
      complain(i, path, problem, field, k - first)
    end
    local c = p[i]
    if c == 93 then
      return i, k - first
    elseif c ~= 44 then
      malformed(i, "',' or ']'")
    elseif want then
      request.wrong_count(path, request.values(want), count_on(i, want))
    end
    i = skip_space(i + 1)
  end
end

-- Nested arrays, one level per dimension; p[i] is "[" of dimension d. Index after the matching "]".
local function read_nested(i, column, path, d)
  local field = column.field
  local size = field.shape[d]
  local known = size >= 0 and size or column.dims[d]
  local start = i
  i = skip_space(i + 1)
  local count = 0
  if p[i] ~= 93 then
    if d == field.rank then
      if known == 0 then
        request.wrong_count(path, "0 values", count_on(i, 1))
      end
      i, count = read_leaf_array(i, column, path, known)
    else
      while true do
        if p[i] ~= 91 then
          wrong_type(i, path .. "[" .. count .. "]", "an array")
        end
        if count == known then
          request.wrong_count(path, "an array of " .. known, count_on(i, known + 1))
        end
        i = skip_space(read_nested(i, column, path .. "[" .. count .. "]", d + 1))
        count = count + 1
        if p[i] == 93 then
          break
        elseif p[i] ~= 44 then
          malformed(i, "',' or ']'")
        end
        i = skip_space(i + 1)
      end
    end
  end
  if known == nil then
    column.dims[d] = count
  elseif count ~= known then
    if d == field.rank then
      request.wrong_count(path, request.values(known), count)
    end
    request.wrong_count(path, "an array of " .. known, count)
  end
  return i + 1, start
end

-- Nested arrays of fixed shape, without making the paths that only errors need. Falls back to read_nested, which finds
-- the error again and names its place; nil says so.
local function read_nested_fast(i, column, d)
  local field = column.field
  local size = field.shape[d]
  if size == 0 then
    return nil
  end
  i = skip_space(i + 1)
  if d == field.rank then
    local width = field.width
    local k = column.used / width
    local after, reached, problem = leaf(i, column, k, k + size, "", field.fixed >= BIG)
    if problem or reached ~= k + size or p[after] ~= 93 then
      return nil
    end
    column.used = reached * width
    return after + 1
  end
  for n = 1, size do
    if p[i] ~= 91 then
      return nil
    end
    i = read_nested_fast(i, column, d + 1)
    if not i then
      return nil
    end
    i = skip_space(i)
    if n < size then
      if p[i] ~= 44 then
        return nil
      end
      i = skip_space(i + 1)
    end
  end
  return p[i] == 93 and i + 1 or nil
end

-- The value of one input at p[i]; index after it.
local function read_tensor(i, column, name)
  local field = column.field
  if field.rank == 0 then
    local k = field.width > 0 and column.used / field.width or column.count
    if field.width > 0 then
      column:room(field.width)
    end
    local path = field.width == 0 and request.path(plan, row, name) or ""
    local after, reached, problem = leaf(i, column, k, k + 1, path)
    if problem then
      complain(after, request.path(plan, row, name), problem, field)
    end
    if field.width > 0 then
      column.used = reached * field.width
    end
    column.row_used, column.row_count = column.used, column.count
    return after
  end
  local path
  if p[i] ~= 91 then
    path = request.path(plan, row, name)
    local expected = field.static and "an array of " .. request.values(field.fixed) or "an array"
    if field.datatype == "UINT8" and p[i] == 123 then
      i = read_b64(i, column, path, expected .. ', or {"b64": "..."}')
      request.check_count(plan, column, row, name)
      return i
    end
    wrong_type(i, path, expected)
  end
  local inner = skip_space(i + 1)
  if p[inner] == 93 then
    if not field.static and not column.dims and #field.dynamic > 1 then
      column.dims = {}
      for _, d in ipairs(field.dynamic) do
        column.dims[d] = 0
      end
    end
    request.check_count(plan, column, row, name)
    return inner + 1
  end
  if p[inner] == 91 and field.rank > 1 then
    if field.static and field.width > 0 then
      column:room(field.fixed * field.width)
      local used = column.used
      if field.fixed >= BIG then
        leaves_big.reenable()
      end
      local after = read_nested_fast(i, column, 1)
      if after then
        column.row_used = column.used
        return after
      end
      column.used = used
    end
    column.dims = column.dims or {}
    i = read_nested(i, column, request.path(plan, row, name), 1)
    request.check_count(plan, column, row, name)
    return i
  end
  local want = field.static and field.fixed or column.elements_per_row
  if want and want > 0 then
    -- The commonest case: a flat array whose length is known. The path is made only for errors.
    local width = field.width
    if width > 0 then
      local k = column.used / width
      column:room(want * width)
      local big = want >= BIG
      if big then
        leaves_big.reenable()
      end
      local after, reached, problem = leaf(inner, column, k, k + want, "", big)
      if not problem and reached == k + want and p[after] == 93 then
        column.used = reached * width
        column.row_used = column.used
        return after + 1
      end
    end
  end
  path = request.path(plan, row, name)
  if want == 0 then
    request.wrong_count(path, "0 values", count_on(inner, 1))
  end
  i = read_leaf_array(inner, column, path, want)
  request.check_count(plan, column, row, name)
  return i + 1
end

-- An object of input fields at p[i]; index after it.
local function read_fields(i, columns)
  local inputs = plan.inputs
  local where = plan.batching and "instances[" .. row .. "]" or ""
  if p[i] ~= 123 then
    wrong_type(i, where, "an object")
  end
  local seen = 0
  i = skip_space(i + 1)
  if p[i] ~= 125 then
    while true do
      local guess = inputs[seen + 1]
      local field, after
      if guess and is_key(i, guess.json_key) then
        field, after = guess, i + #guess.json_key
      else
        local key
        key, after = read_key(i)
        field = plan.input_by_name[key]
        if not field then
          local names = {}
          for j, input in ipairs(inputs) do
            names[j] = input.name
          end
          local expected = "one of " .. table.concat(names, ", ")
          invalid("UNKNOWN_FIELD", where ~= "" and where .. "." .. key or key, "unknown field; expected " .. expected, expected, key)
        end
      end
      local column = columns[field.index]
      if column.seen == row then
        invalid("MALFORMED_JSON", request.path(plan, row, field.name), "duplicate key", "one value", "two values")
      end
      column.seen = row
      seen = seen + 1
      i = skip_space(read_tensor(after_colon(after), column, field.name))
      if p[i] == 125 then
        break
      elseif p[i] ~= 44 then
        malformed(i, "',' or '}'")
      end
      i = skip_space(i + 1)
    end
  end
  if seen < #inputs then
    for j, field in ipairs(inputs) do
      if columns[j].seen ~= row then
        invalid(
          "MISSING_FIELD", request.path(plan, row, field.name), "missing field; expected " ..
          (field.rank == 0 and field.says or field.static and "an array of " .. request.values(field.fixed) or "an array"),
          field.datatype, "nothing"
        )
      end
    end
  end
  return i + 1
end

local function read_instances(i, columns)
  if p[i] ~= 91 then
    wrong_type(i, "instances", "an array of instances")
  end
  i = skip_space(i + 1)
  if p[i] == 93 then
    request.no_rows()
  end
  while true do
    request.check_rows(plan, row + 1)
    i = skip_space(read_fields(i, columns))
    row = row + 1
    if p[i] == 93 then
      return i + 1
    elseif p[i] ~= 44 then
      malformed(i, "',' or ']'")
    end
    i = skip_space(i + 1)
  end
end

local INSTANCES = '"instances"'

local function read_document(columns)
  local i = skip_space(0)
  if i >= #held then
    errors.invalid("EMPTY_BODY", "", 'the body is empty; expected a JSON object such as ' ..
      (plan.batching and '{"instances":[...]}' or '{"' .. (plan.inputs[1] and plan.inputs[1].name or "") .. '":...}'), "a JSON object", "nothing")
  end
  if p[0] == 0x1F and p[1] == 0x8B then
    errors.fail({ code = errors.INVALID_ARGUMENT, http = 415, reason = "COMPRESSED", message = "the body is compressed; send it without content-encoding" })
  end
  if p[i] ~= 123 then
    wrong_type(i, "", "a JSON object")
  end
  if plan.batching then
    i = skip_space(i + 1)
    local found = false
    while p[i] ~= 125 do
      local after
      if is_key(i, INSTANCES) then
        after = i + #INSTANCES
      else
        local key
        key, after = read_key(i)
        if key ~= "instances" then
          invalid("UNKNOWN_FIELD", key, "unknown field; expected instances", "instances", key)
        end
      end
      if found then
        invalid("MALFORMED_JSON", "instances", "duplicate key", "one value", "two values")
      end
      found = true
      i = skip_space(read_instances(after_colon(after), columns))
      if p[i] == 44 then
        i = skip_space(i + 1)
        if p[i] ~= 34 then
          malformed(i, "a field name in quotes")
        end
      elseif p[i] ~= 125 then
        malformed(i, "',' or '}'")
      end
    end
    if not found then
      invalid("MISSING_FIELD", "instances", "missing field; expected an array of instances", "an array of instances", "nothing")
    end
    i = i + 1
  else
    i = read_fields(i, columns)
    row = 1
  end
  i = skip_space(i)
  if i < #held then
    malformed(i, "the end of the body")
  end
  return request.finish(plan, row)
end

-- `body` (a Lua string) as a framed ModelInferRequest. Throws errors of errors.lua.
function M.decode(spec, body)
  plan, held, row = spec, body, 0
  p = ffi.cast("const uint8_t *", body)
  return read_document(request.columns(spec))
end

return M
