-- The shape of one input in one row, and whether an optional input is there.
--
-- Used by `json_read` and `typed_read` when a row of an input has been read; never by inputs of fixed shape, whose count
-- says all. A shape comes from the nesting of JSON arrays, from the sizes in the companion field (`x_shape`), or from the
-- number of values when one dimension is unknown. All rows of a request have one shape.
--
-- What a column (request.lua) carries for this: `dims` and `elements_per_row`, the request's, from the first row on;
-- `nested`, `given` with `given_count`, this row's, from nesting and companion; `absent`, the first row's choice.
local errors = require("errors")
local paths = require("paths")

local invalid = errors.invalid
local values, wrong_count = paths.values, paths.wrong_count

local M = {}

-- Largest size of a dimension that a caller can state.
M.LARGEST_SIZE = 2147483647

local function shape_text(dims)
  return "[" .. table.concat(dims, ", ") .. "]"
end
M.text = shape_text

local function wrong_shape(path, expected, received)
  invalid("WRONG_SHAPE", path, "expected " .. expected .. ", received " .. received, expected, received)
end

local function companion_path(plan, field, row, typed)
  local companion = field.shape_field
  return paths.of(plan, row, typed and companion.proto_name or companion.name)
end

-- The companion's sizes, checked against the contract and the number of values.
local function dims_given(plan, column, row, received, typed)
  local field, given, count = column.field, column.given, column.given_count
  local path = companion_path(plan, field, row, typed)
  if count ~= field.rank then
    wrong_count(path, field.rank .. " sizes, one per dimension", count)
  end
  local dims, total = {}, 1
  for d = 1, field.rank do
    local size, fixed = given[d], field.shape[d]
    if fixed >= 0 and size ~= fixed then
      wrong_shape(path .. "[" .. d - 1 .. "]", fixed, size)
    end
    dims[d] = size
    total = total * size
  end
  if total ~= received then
    wrong_shape(path, "sizes whose product is the number of values, " .. received, shape_text(dims) .. ", which is " .. total)
  end
  return dims
end

-- The sizes that nesting told. Below an empty array nothing is told: `known` says, or a size is 0.
local function dims_nested(column, known)
  local field, dims = column.field, {}
  for d = 1, field.rank do
    local size = field.shape[d]
    dims[d] = size >= 0 and size or column.nested[d] or known and known[d] or 0
  end
  return dims
end

local function dims_counted(plan, column, row, name, received, typed)
  local field = column.field
  if field.needs_shape and received > 0 then
    local companion = typed and field.shape_field.proto_name or field.shape_field.name
    invalid(
      "MISSING_FIELD", companion_path(plan, field, row, typed),
      "missing field; the number of values does not tell the shape of " .. name .. ": expected its " .. field.rank .. " sizes" ..
      (typed and "" or ", or nested arrays in " .. name),
      field.rank .. " sizes in " .. companion, "nothing"
    )
  elseif field.fixed == 0 and received > 0 or field.fixed > 0 and received % field.fixed ~= 0 then
    wrong_count(paths.of(plan, row, name), field.fixed == 0 and "0 values" or "a multiple of " .. field.fixed .. " values", received)
  end
  local dims = {}
  for d = 1, field.rank do
    dims[d] = field.shape[d]
  end
  for _, d in ipairs(field.dynamic) do
    dims[d] = 0
  end
  if received > 0 then
    dims[field.dynamic[1]] = received / field.fixed
  end
  return dims
end

-- Checks the shape of an input in one row against the contract and the rows before it. `name`: as this protocol calls it.
function M.check(plan, column, row, name, typed)
  local field = column.field
  local received = column:row_elements()
  local dims
  if column.given then
    dims = dims_given(plan, column, row, received, typed)
    if column.nested then
      local told = dims_nested(column, dims)
      for d = 1, field.rank do
        if told[d] ~= dims[d] then
          wrong_shape(companion_path(plan, field, row, typed), shape_text(told) .. ", as " .. name .. " is nested", shape_text(dims))
        end
      end
    end
  elseif column.nested then
    dims = dims_nested(column, column.dims)
  elseif field.static then
    if received ~= field.fixed then
      wrong_count(paths.of(plan, row, name), values(field.fixed), received)
    end
    return
  elseif column.elements_per_row and received ~= column.elements_per_row then
    wrong_count(
      paths.of(plan, row, name),
      values(column.elements_per_row) .. " (as in instances[0]; all instances of a request have one shape)",
      received
    )
  else
    dims = dims_counted(plan, column, row, name, received, typed)
  end
  if not column.dims then
    column.dims, column.elements_per_row = dims, received
    return
  end
  for d = 1, field.rank do
    if dims[d] ~= column.dims[d] then
      wrong_shape(
        paths.of(plan, row, name),
        "shape " .. shape_text(column.dims) .. " (as in instances[0]; all instances of a request have one shape)",
        shape_text(dims)
      )
    end
  end
end

local function lacks(plan, row, other, name)
  invalid(
    "MISSING_FIELD", paths.of(plan, row, name),
    "missing field; instances[" .. other .. "] has it, and an optional input is in all instances of a request or in none",
    "a value in every instance or in none", "nothing"
  )
end

-- Notes whether an optional input is in this row; all rows must do alike.
function M.note_presence(plan, column, row, name, present)
  if row == 0 then
    column.absent = not present
  elseif present and column.absent then
    lacks(plan, 0, row, name)
  elseif not present and not column.absent then
    lacks(plan, row, 0, name)
  end
end

return M
