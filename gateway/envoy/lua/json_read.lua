-- Typed JSON to a ModelInferRequest: `{"instances":[{...}]}`, or the fields themselves for a model that does not batch.
--
-- Strict: unknown fields, duplicate keys, missing fields, wrong counts, wrong types and anything that is not JSON are
-- errors with the path of the field. Never builds general JSON values: depth is bounded by the declared rank, so deep
-- nesting costs nothing. Here are the objects; `json_tensor` reads what is in their fields, `json_text` the text.
local errors = require("errors")
local ffi = require("ffi")
local json_tensor = require("json_tensor")
local json_text = require("json_text")
local leaves = require("leaves")
local paths = require("paths")
local request = require("request")
local shapes = require("shapes")

local after_colon, is_key, malformed = json_text.after_colon, json_text.is_key, json_text.malformed
local skip_space, wrong_type = json_text.skip_space, json_text.wrong_type
local read_tensor = json_tensor.read
local invalid = errors.invalid

local M = {}

-- The request being read: its bytes, their number, its plan and the row.
local p, stop, plan, row

-- Sizes of a companion while they are read; grows with the ranks there are.
local sizes, sizes_capacity = nil, 0

-- `null`, which stands for an optional input that is not there; index after it, or nil.
local function after_null(i)
  return p[i] == 110 and p[i + 1] == 117 and p[i + 2] == 108 and p[i + 3] == 108 and i + 4 or nil
end

-- The sizes in a companion field (`x_shape`) at p[i]; index after them.
local function read_sizes(i, column)
  local field = column.field
  local path = paths.of(plan, row, field.shape_field.name)
  if column.given then
    invalid("MALFORMED_JSON", path, "duplicate key", "one value", "two values")
  end
  local expected = "an array of " .. field.rank .. " sizes"
  if p[i] ~= 91 then
    wrong_type(i, path, expected)
  end
  if field.rank > sizes_capacity then
    sizes, sizes_capacity = ffi.new("int32_t[?]", field.rank), field.rank
  end
  local count, problem = 0, nil
  i = skip_space(i + 1)
  if p[i] ~= 93 then
    local start = i
    i, count, problem = leaves.int32(p, i, sizes, 0, field.rank, 0)
    if problem == "syntax" then
      malformed(i, "a number")
    elseif problem then
      wrong_type(i, path .. "[" .. count .. "]", "a size from 0 to " .. shapes.LARGEST_SIZE)
    elseif p[i] == 44 then
      paths.wrong_count(path, field.rank .. " sizes, one per dimension", json_text.count_on(start, 0) + 1)
    elseif p[i] ~= 93 then
      malformed(i, "',' or ']'")
    end
  end
  column.given, column.given_count = {}, count
  for d = 1, count do
    local size = sizes[d - 1]
    if size < 0 then
      invalid("OUT_OF_RANGE", path .. "[" .. d - 1 .. "]", "expected a size from 0 on, received " .. size, "a size from 0 on", size)
    end
    column.given[d] = size
  end
  return i + 1
end

local function unknown_field(where, key)
  local names = {}
  for j, input in ipairs(plan.inputs) do
    names[j] = input.name
  end
  local expected = "one of " .. table.concat(names, ", ")
  invalid("UNKNOWN_FIELD", where ~= "" and where .. "." .. key or key, "unknown field; expected " .. expected, expected, key)
end

local function missing_field(field)
  invalid(
    "MISSING_FIELD", paths.of(plan, row, field.name), "missing field; expected " ..
    (field.rank == 0 and field.says or field.static and "an array of " .. paths.values(field.fixed) or "an array"),
    field.rank > 0 and field.static and paths.values(field.fixed) or field.says, "nothing"
  )
end

-- Inputs whose shape or presence shows only now that the whole row is read.
local function finish_late(columns)
  for j, field in ipairs(plan.inputs) do
    local column = columns[j]
    if field.late then
      local present = not field.optional or column:row_elements() > 0 or column.nested ~= nil or column.given ~= nil
      if field.optional then
        shapes.note_presence(plan, column, row, field.name, present)
      end
      if present then
        shapes.check(plan, column, row, field.name, false)
      end
      column.row_used, column.row_count = column.used, column.count
      column.nested, column.given = nil, nil
    end
  end
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
      local field, companion, after
      if guess and is_key(i, guess.json_key) then
        field, after = guess, i + #guess.json_key
      else
        local key
        key, after = json_text.read_key(i)
        field, companion = plan.input_by_name[key], plan.shape_by_name[key]
        if not field and not companion then
          unknown_field(where, key)
        end
      end
      i = after_colon(after)
      if companion then
        i = read_sizes(i, columns[companion.index])
      else
        local column = columns[field.index]
        if column.seen == row then
          invalid("MALFORMED_JSON", paths.of(plan, row, field.name), "duplicate key", "one value", "two values")
        end
        column.seen = row
        seen = seen + 1
        i = field.optional and after_null(i) or read_tensor(i, column, field.name, row)
      end
      i = skip_space(i)
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
      if columns[j].seen ~= row and not field.optional then
        missing_field(field)
      end
    end
  end
  if plan.late then
    finish_late(columns)
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
  if i >= stop then
    errors.invalid("EMPTY_BODY", "", 'the body is empty; expected a JSON object such as ' ..
      (plan.batching and '{"instances":[...]}' or '{"' .. (plan.inputs[1] and plan.inputs[1].name or "") .. '":...}'), "a JSON object", "nothing")
  end
  if p[0] == 0x1F and p[1] == 0x8B then
    errors.compressed("content-encoding", "gzip", 415)
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
        key, after = json_text.read_key(i)
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
  if i < stop then
    malformed(i, "the end of the body")
  end
  return request.finish(plan, row)
end

-- `body` (a Lua string) as a framed ModelInferRequest. Throws errors of errors.lua.
function M.decode(spec, body)
  plan, row = spec, 0
  p, stop = json_text.begin(body)
  json_tensor.begin(spec, p, stop)
  return read_document(request.columns(spec))
end

return M
