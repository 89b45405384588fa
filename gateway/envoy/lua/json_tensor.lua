-- The value of one input in JSON: a scalar, a flat array, nested arrays, base64.
--
-- Used by `json_read`. Depth is bounded by the declared rank. What is right is read without making the paths that only
-- errors need; the way with paths is taken when something is wrong, and finds it again.
local json_elements = require("json_elements")
local json_text = require("json_text")
local leaves = require("leaves")
local leaves_big = require("leaves_big")
local errors = require("errors")
local paths = require("paths")
local shapes = require("shapes")

local count_on, malformed, preview = json_text.count_on, json_text.malformed, json_text.preview
local skip_space, wrong_type = json_text.skip_space, json_text.wrong_type
local values, wrong_count = paths.values, paths.wrong_count
local invalid = errors.invalid
local other_elements = json_elements.BY_DATATYPE
local ceil = math.ceil

local M = {}

-- From this many elements on, arrays go through the copy of the loops that small requests never touch.
local BIG = 256
-- Elements read between two growths of a column whose length is not known.
local CHUNK = 4096

-- The request being read: its bytes, their number, its plan and the row.
local p, size_of_text, plan, row

function M.begin(spec, bytes, size)
  plan, p, size_of_text = spec, bytes, size
end

-- Reads elements from p[i] into the column from element k on; see leaves.lua for the form.
local function leaf(i, column, k, limit, path, big, inner)
  local reader = column.field.reader
  if reader then
    return (big and leaves_big or leaves)[reader](p, i, column.elements, k, limit, inner or 0)
  end
  return other_elements[column.field.datatype](p, i, column, k, limit, path)
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

-- Array of values at p[i] (after its bracket and spaces, not empty): index of "]", number of values.
-- `want` is the number there must be, or nil.
local function read_leaf_array(i, column, path, want)
  local field = column.field
  local width = field.width
  local first = width > 0 and column.used / width or column.count
  local k = first
  local big = want and want >= BIG or not want and size_of_text - i > BIG * 4
  while true do
    local limit = want and first + want or k + CHUNK
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
      wrong_count(path, values(want), count_on(i, want))
    end
    i = skip_space(i + 1)
  end
end

-- The size that dimension d must have, as far as it is known by now.
local function known_size(column, d)
  local size = column.field.shape[d]
  return size >= 0 and size or column.nested[d] or column.dims and column.dims[d] or nil
end

-- Nested arrays, one level per dimension; p[i] is "[" of dimension d. Index after the matching "]". Names every mistake.
local function read_nested(i, column, path, d)
  local field = column.field
  local known = known_size(column, d)
  i = skip_space(i + 1)
  local count = 0
  if p[i] ~= 93 then
    if d == field.rank then
      if known == 0 then
        wrong_count(path, "0 values", count_on(i, 1))
      end
      i, count = read_leaf_array(i, column, path, known)
    else
      while true do
        if p[i] ~= 91 then
          wrong_type(i, path .. "[" .. count .. "]", "an array")
        end
        if count == known then
          wrong_count(path, "an array of " .. known, count_on(i, known + 1))
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
  if known and count ~= known then
    wrong_count(path, d == field.rank and values(known) or "an array of " .. known, count)
  end
  column.nested[d] = count
  return i + 1
end

-- The two innermost dimensions at once, so that channels-last images (arrays of 3) are as fast as flat ones; p[i] is "[" of
-- dimension rank - 1. Index after the matching "]", or nil where read_nested must say what is wrong.
local function read_planes(i, column)
  local field = column.field
  local rank = field.rank
  local rows, inner = known_size(column, rank - 1), known_size(column, rank)
  i = skip_space(i + 1)
  if p[i] ~= 91 then
    return nil
  end
  i = skip_space(i + 1)
  inner = inner or p[i] ~= 93 and count_on(i, 0) + 1
  if not inner or inner == 0 or rows == 0 then
    return nil
  end
  local width = field.width
  local first = column.used / width
  local k = first
  local big = (rows and rows * inner or size_of_text - i) >= BIG
  while true do
    local limit = rows and first + rows * inner or k + ceil(CHUNK / inner) * inner
    column:room((limit - k) * width)
    local problem
    i, k, problem = leaf(i, column, k, limit, "", big, inner)
    if problem or p[i] ~= 93 or (k - first) % inner ~= 0 then
      return nil
    end
    column.used = k * width
    i = skip_space(i + 1)
    if p[i] == 93 then
      break
    elseif rows or k ~= limit or p[i] ~= 44 then
      return nil
    end
    i = skip_space(i + 1)
    if p[i] ~= 91 then
      return nil
    end
    i = skip_space(i + 1)
  end
  local count = (k - first) / inner
  if rows and count ~= rows then
    return nil
  end
  column.nested[rank - 1], column.nested[rank] = count, inner
  return i + 1
end

-- The innermost dimension alone, for elements that are not plain numbers.
local function read_line(i, column)
  local field = column.field
  local inner = known_size(column, field.rank)
  i = skip_space(i + 1)
  inner = inner or p[i] ~= 93 and count_on(i, 0) + 1
  if not inner or inner == 0 then
    return nil
  end
  local k = column.used / field.width
  column:room(inner * field.width)
  local after, reached, problem = leaf(i, column, k, k + inner, "")
  if problem or reached ~= k + inner or p[after] ~= 93 then
    return nil
  end
  column.used = reached * field.width
  column.nested[field.rank] = inner
  return after + 1
end

-- Nested arrays without paths; nil where read_nested must say what is wrong.
local function read_nested_fast(i, column, d)
  local field = column.field
  if d == field.rank then
    return read_line(i, column)
  elseif d == field.rank - 1 and field.reader then
    return read_planes(i, column)
  end
  local size = known_size(column, d)
  local count = 0
  repeat
    i = skip_space(i + 1)
    if p[i] ~= 91 then
      return nil
    end
    i = read_nested_fast(i, column, d + 1)
    if not i then
      return nil
    end
    i = skip_space(i)
    count = count + 1
  until p[i] ~= 44
  if p[i] ~= 93 or size and size ~= count then
    return nil
  end
  column.nested[d] = count
  return i + 1
end

-- UINT8 and INT8 are `bytes` in the typed message: as {"b64": ...}, or as text alone, which is protobuf's JSON for them.
local function read_bytes(i, column, path, expected)
  if p[i] == 123 then
    return json_elements.read_b64(p, i, column, path, expected)
  elseif p[i] == 34 then
    return json_elements.read_base64(p, i, column, path)
  end
  wrong_type(i, path, expected)
end

local function read_scalar(i, column, name)
  local field = column.field
  local width = field.width
  if field.is_bytes and (p[i] == 34 or p[i] == 123) then
    i = read_bytes(i, column, paths.of(plan, row, name), field.says)
    shapes.check(plan, column, row, name, false)
    if not field.late then
      column.row_used = column.used
    end
    return i
  end
  local k = width > 0 and column.used / width or column.count
  if width > 0 then
    column:room(width)
  end
  local path = width == 0 and paths.of(plan, row, name) or ""
  local after, reached, problem = leaf(i, column, k, k + 1, path)
  if problem then
    complain(after, paths.of(plan, row, name), problem, field)
  end
  if width > 0 then
    column.used = reached * width
  end
  if not field.late then
    column.row_used, column.row_count = column.used, column.count
  end
  return after
end

local function read_arrays(i, column, name)
  local field = column.field
  -- One table per input and row; none for fixed shapes, which need no telling.
  column.nested = field.static and column.untold or {}
  if field.width > 0 then
    local used = column.used
    if field.static then
      column:room(field.fixed * field.width)
    end
    local after = read_nested_fast(i, column, 1)
    if after then
      return after
    end
    column.used = used
    column.nested = field.static and column.untold or {}
  end
  return read_nested(i, column, paths.of(plan, row, name), 1)
end

-- A flat array whose length is known: the commonest case. Index after it; nil when something is wrong.
local function read_flat(i, column, want)
  local width = column.field.width
  if width == 0 or want == 0 then
    return nil
  end
  local k = column.used / width
  column:room(want * width)
  local after, reached, problem = leaf(i, column, k, k + want, "", want >= BIG)
  if problem or reached ~= k + want or p[after] ~= 93 then
    return nil
  end
  column.used = reached * width
  return after + 1
end

-- Ends a row of an input: checks its shape, unless what tells it may still come (`late`, see json_read.lua).
local function finish(column, name)
  if not column.field.late then
    shapes.check(plan, column, row, name, false)
    column.row_used, column.row_count = column.used, column.count
    column.nested = nil
  end
end

-- The value of one input at p[i]; index after it.
function M.read(i, column, name, in_row)
  row = in_row
  local field = column.field
  if field.rank == 0 then
    return read_scalar(i, column, name)
  end
  if p[i] ~= 91 then
    local path = paths.of(plan, row, name)
    local expected = field.static and "an array of " .. values(field.fixed) or "an array"
    if not field.is_bytes then
      wrong_type(i, path, expected)
    end
    i = read_bytes(i, column, path, expected .. ', or {"b64": "..."}')
    finish(column, name)
    return i
  end
  local inner = skip_space(i + 1)
  if p[inner] == 93 then
    finish(column, name)
    return inner + 1
  elseif p[inner] == 91 and field.rank > 1 then
    i = read_arrays(i, column, name)
    finish(column, name)
    return i
  end
  local want = field.static and field.fixed or column.elements_per_row
  local after = want and read_flat(inner, column, want)
  if after then
    if field.static and not field.late then
      column.row_used = column.used
      return after
    end
  else
    local path = paths.of(plan, row, name)
    if want == 0 then
      wrong_count(path, "0 values", count_on(inner, 1))
    end
    after = read_leaf_array(inner, column, path, field.static and want or nil) + 1
  end
  finish(column, name)
  return after
end

return M
