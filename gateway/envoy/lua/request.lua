-- From column buffers to a framed ModelInferRequest.
--
-- `json_read` and `typed_read` fill one column per input; `finish` puts the message around them. What stands before the
-- first tensor byte depends on the number of rows only (and on inferred dimensions), so it is made once and kept; with
-- one input of fixed width the data is already in place behind room for it, and nothing is moved.
--
-- The request's `id` is the number of rows. Servers repeat it in their answer, which lets `answer.lua` verify the
-- count of rows without state between request and response.
local buffers = require("buffers")
local errors = require("errors")
local ffi = require("ffi")
local protobuf = require("protobuf")

local M = {}

-- Bytes kept free in front of every column.
local ROOM = 2048
-- Cached heads per plan; a caller who sends every possible row count must not fill memory.
local MOST_HEADS = 512

local Column = {}
Column.__index = Column

-- One input while it is read: `used` bytes of data after ROOM; `count` elements (BYTES only). `row_used` and `row_count`
-- are those where the row began; what is known of shapes is described in shapes.lua.
local function new_column()
  return setmetatable({ buffer = buffers.new(), used = 0, count = 0, row_used = 0, row_count = 0, capacity = 0, untold = {} }, Column)
end

-- Makes room for `more` bytes of data after what is used.
function Column:room(more)
  if self.used + more > self.capacity then
    self.buffer:reserve(ROOM + self.used + more + 8)
    self.capacity = self.buffer.capacity - ROOM
    self.data = self.buffer.p + ROOM
    self.elements = self.field.pointer_t and ffi.cast(self.field.pointer_t, self.data)
  end
end

-- Elements read for this input since `row` began.
function Column:row_elements()
  local width = self.field.width
  if width == 0 then
    return self.count - self.row_count
  end
  return (self.used - self.row_used) / width
end

local columns = {}
local whole = buffers.new()

-- Fresh columns for a request of `plan`, an array in the order of its inputs.
function M.columns(plan)
  local inputs = plan.inputs
  for j = 1, #inputs do
    local column = columns[j]
    if not column then
      column = new_column()
      columns[j] = column
    end
    column.used, column.count, column.row_used, column.row_count = 0, 0, 0, 0
    column.seen = -1
    column.dims, column.elements_per_row, column.absent = nil, nil, nil
    column.nested, column.given, column.given_count = nil, nil, 0
    if column.field ~= inputs[j] then
      column.field = inputs[j]
      column.elements = column.field.pointer_t and column.data and ffi.cast(column.field.pointer_t, column.data)
    end
  end
  return columns
end

-- Refuses a row number that the model's limit excludes; called before the row is read.
function M.check_rows(plan, rows)
  if plan.max_rows > 0 and rows > plan.max_rows then
    errors.fail({
      code = errors.INVALID_ARGUMENT,
      reason = "TOO_MANY_ROWS",
      field = "instances",
      message = "instances: expected at most " .. plan.max_rows .. " instances, received more",
      expected = "at most " .. plan.max_rows .. " instances",
      received = "at least " .. rows .. " instances",
      try = "send several smaller requests",
    })
  end
end

function M.no_rows()
  errors.invalid("MISSING_FIELD", "instances", "expected at least 1 instance, received 0", "at least 1 instance", "0 instances")
end

-- Shape of an input as ModelInferRequest has it: packed varints, the rows first.
local function shape_bytes(plan, field, column, rows)
  local shape = plan.batching and protobuf.varint_bytes(rows) or ""
  for d = 1, field.rank do
    shape = shape .. protobuf.varint_bytes(field.static and field.shape[d] or column.dims[d])
  end
  if field.rank == 0 then
    shape = shape .. "\1" -- Triton has no tensors of rank 0: a scalar is one element
  end
  return shape
end

-- The message up to the first tensor: names, shapes, wanted outputs.
local function make_meta(plan, rows)
  local parts = { plan.request_start, protobuf.field(3, tostring(rows)) }
  for j, field in ipairs(plan.inputs) do
    if not columns[j].absent then
      parts[#parts + 1] = protobuf.field(5, field.meta_start .. protobuf.field(3, shape_bytes(plan, field, columns[j], rows)))
    end
  end
  parts[#parts + 1] = plan.request_end
  return table.concat(parts)
end

local function remember(plan, rows, head)
  if plan.heads_count >= MOST_HEADS then
    plan.heads, plan.heads_count = {}, 0
  end
  plan.heads[rows] = head
  plan.heads_count = plan.heads_count + 1
  return head
end

local function give_back(plan)
  for j = 1, #plan.inputs do
    local column = columns[j]
    if column.buffer:trim() then
      column.capacity, column.data, column.elements = 0, nil, nil
      column.field = nil
    end
  end
  whole:trim()
end

-- The framed message of `rows` rows (1 for a model that does not batch).
function M.finish(plan, rows)
  local inputs = plan.inputs
  local body
  if #inputs == 1 and plan.static and plan.sized then
    local column = columns[1]
    column:room(0)
    local head = plan.heads[rows]
    if not head then
      local meta = make_meta(plan, rows)
      local tail = "\58" .. protobuf.varint_bytes(column.used)
      head = remember(plan, rows, protobuf.frame(#meta + #tail + column.used) .. meta .. tail)
    end
    if #head <= ROOM then
      local start = column.data - #head
      ffi.copy(start, head, #head)
      body = ffi.string(start, #head + column.used)
    end
  end
  if not body then
    local meta = plan.static and plan.heads[-rows]
    if not meta then
      meta = make_meta(plan, rows)
      if plan.static then
        remember(plan, -rows, meta)
      end
    end
    local size = #meta
    for j = 1, #inputs do
      local used = columns[j].used
      if not columns[j].absent then
        size = size + 1 + protobuf.varint_size(used) + used
      end
    end
    local p = whole:reserve(size + 5)
    ffi.copy(p, protobuf.frame(size), 5)
    ffi.copy(p + 5, meta, #meta)
    local o = 5 + #meta
    for j = 1, #inputs do
      local column = columns[j]
      if not column.absent then
        p[o] = 58 -- field 7, raw_input_contents
        o = protobuf.put_varint(p, o + 1, column.used)
        if column.used > 0 then
          ffi.copy(p + o, column.data, column.used)
        end
        o = o + column.used
      end
    end
    body = ffi.string(p, o)
  end
  give_back(plan)
  return body
end

return M
