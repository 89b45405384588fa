-- Typed protobuf (`PredictRequest`) to a ModelInferRequest.
--
-- A packed field of fixed width is the tensor already, so most of the work is copying spans. All that proto3 parsers
-- must accept is accepted: packed, unpacked and split lists, unknown fields, last one wins for single values.
local errors = require("errors")
local ffi = require("ffi")
local halves = require("halves")
local paths = require("paths")
local protobuf = require("protobuf")
local request = require("request")
local shapes = require("shapes")
local text = require("text")

local invalid = errors.invalid
local read_tag, span, skip, varint = protobuf.tag, protobuf.span, protobuf.skip, protobuf.varint

local M = {}

-- The message being read; see json_text.lua for why these are not parameters.
local p, held, plan, row

local function malformed(what)
  invalid("MALFORMED_PROTOBUF", "", "the message is not valid protobuf: " .. what, "a PredictRequest", what)
end

-- `element`: index of the element of 16 bits in the column, which has the rows before too.
local function out_of_range(column, element, received)
  local field = column.field
  local path = paths.of(plan, row, field.proto_name)
  if field.repeated then
    path = path .. "[" .. element - column.row_used / 2 .. "]"
  end
  invalid("OUT_OF_RANGE", path, "expected " .. field.range .. ", received " .. received, field.range, tostring(received))
end

-- Appenders: bytes p[i..stop-1], a packed run or one element, to a column. Fixed widths were checked by the caller.

local function append_same(column, i, stop)
  column:room(stop - i)
  ffi.copy(column.data + column.used, p + i, stop - i)
  column.used = column.used + (stop - i)
end

local function append_int16(column, i, stop)
  column:room((stop - i) / 2)
  local source, k = ffi.cast("const int32_t *", p + i), column.used / 2
  for j = 0, (stop - i) / 4 - 1 do
    local v = source[j]
    if v < -32768 or v > 32767 then
      out_of_range(column, k + j, v)
    end
    column.elements[k + j] = v
  end
  column.used = column.used + (stop - i) / 2
end

local function append_uint16(column, i, stop)
  column:room((stop - i) / 2)
  local source, k = ffi.cast("const uint32_t *", p + i), column.used / 2
  for j = 0, (stop - i) / 4 - 1 do
    local v = source[j]
    if v > 65535 then
      out_of_range(column, k + j, v)
    end
    column.elements[k + j] = v
  end
  column.used = column.used + (stop - i) / 2
end

local function appender_of_halves(convert)
  return function(column, i, stop)
    column:room((stop - i) / 2)
    local source, k = ffi.cast("const uint32_t *", p + i), column.used / 2
    for j = 0, (stop - i) / 4 - 1 do
      local h = convert(source[j])
      if not h then
        out_of_range(column, k + j, "a larger number")
      end
      column.elements[k + j] = h
    end
    column.used = column.used + (stop - i) / 2
  end
end

local function append_bools(column, i, stop)
  column:room(stop - i)
  local dst, k = column.data, column.used
  while i < stop do
    local b = p[i]
    if b < 128 then
      dst[k] = b == 0 and 0 or 1
      i = i + 1
    else
      local value, after = varint(p, i, stop)
      if not value then
        malformed("a varint is cut short")
      end
      dst[k] = value == 0 and 0 or 1
      i = after
    end
    k = k + 1
  end
  column.used = k
end

local function append_string(column, i, stop)
  local bad = text.utf8_end(p, i, stop)
  if bad < stop then
    invalid("WRONG_TYPE", paths.of(plan, row, column.field.proto_name), "expected UTF-8 text, received other bytes", "UTF-8 text", "bytes that are not UTF-8")
  end
  column:room(4 + stop - i)
  ffi.cast("uint32_t *", column.data + column.used)[0] = stop - i
  ffi.copy(column.data + column.used + 4, p + i, stop - i)
  column.used = column.used + 4 + stop - i
  column.count = column.count + 1
end

local APPEND = {
  FP32 = append_same, FP64 = append_same, INT32 = append_same, INT64 = append_same, UINT32 = append_same,
  UINT64 = append_same, UINT8 = append_same, INT8 = append_same, BOOL = append_bools, BYTES = append_string,
  INT16 = append_int16, UINT16 = append_uint16,
  FP16 = appender_of_halves(halves.bits32_to_fp16), BF16 = appender_of_halves(halves.bits32_to_bf16),
}

-- One occurrence of an input field; index after it.
local function read_field(i, stop, tag, column)
  local field = column.field
  local wire = tag % 8
  if not field.repeated then -- the last one wins
    column.used, column.count = column.row_used, column.row_count
  end
  local from, upto
  if wire == protobuf.LENGTH then
    from, upto = span(p, i, stop)
    if not from then
      malformed("field " .. field.proto_name .. " is longer than its message")
    end
    -- UINT8, INT8 and BYTES are lengths themselves; anything else here is a packed run.
    if tag ~= field.tag_number then
      local element = field.tag_number % 8
      local unit = element == protobuf.FIXED32 and 4 or element == protobuf.FIXED64 and 8 or 1
      if (upto - from) % unit ~= 0 then
        malformed("the length of field " .. field.proto_name .. " is not a multiple of " .. unit)
      end
    end
  elseif wire == protobuf.VARINT then
    local value
    value, upto = varint(p, i, stop)
    if not value then
      malformed("a varint is cut short")
    end
    from = i
  else
    from, upto = i, i + (wire == protobuf.FIXED32 and 4 or 8)
    if upto > stop then
      malformed("field " .. field.proto_name .. " is cut short")
    end
  end
  if upto > from or wire == protobuf.LENGTH then
    APPEND[field.datatype](column, from, upto)
  end
  return upto
end

-- Sizes of a companion field (`x_shape`): a packed run or one element; index after it.
local function read_sizes(i, stop, tag, column)
  local companion = column.field.shape_field
  local from, upto = i, i + 8
  if tag % 8 == protobuf.LENGTH then
    from, upto = span(p, i, stop)
    if not from then
      malformed("field " .. companion.proto_name .. " is longer than its message")
    elseif (upto - from) % 8 ~= 0 then
      malformed("the length of field " .. companion.proto_name .. " is not a multiple of 8")
    end
  elseif upto > stop then
    malformed("field " .. companion.proto_name .. " is cut short")
  end
  column.given = column.given or {}
  for at = from, upto - 8, 8 do
    local half = ffi.cast("const uint32_t *", p + at)
    local count = #column.given + 1
    if half[1] ~= 0 or half[0] > shapes.LARGEST_SIZE then
      local received = tostring(ffi.cast("const int64_t *", p + at)[0]):gsub("LL$", "")
      invalid(
        "OUT_OF_RANGE", paths.of(plan, row, companion.proto_name) .. "[" .. count - 1 .. "]",
        "expected a size from 0 to " .. shapes.LARGEST_SIZE .. ", received " .. received,
        "a size from 0 to " .. shapes.LARGEST_SIZE, received
      )
    elseif count <= column.field.rank then
      column.given[count] = half[0]
    end
    column.given_count = column.given_count + 1
  end
  return upto
end

local function missing_field(field)
  local expected = field.static and paths.values(field.fixed) or "at least 1 value"
  invalid(
    "MISSING_FIELD", paths.of(plan, row, field.proto_name), "missing field; expected " .. expected .. ", received 0",
    expected, "0 values"
  )
end

-- Checks an input now that the row is read.
local function finish_row(column)
  local field = column.field
  local received = column:row_elements()
  -- proto3 does not tell an empty list from an absent one.
  local present = received > 0 or column.given ~= nil
  if field.optional then
    shapes.note_presence(plan, column, row, field.proto_name, present)
  elseif not present and not (field.static and field.fixed == 0) then
    missing_field(field)
  end
  if column.given or received ~= field.fixed or not field.static then
    if present or not field.optional then
      shapes.check(plan, column, row, field.proto_name, true)
    end
    column.given, column.given_count = nil, 0
  end
  column.row_used, column.row_count = column.used, column.count
end

-- The input fields in p[i..stop-1], then the checks of the row.
local function read_fields(i, stop, columns)
  local by_tag = plan.by_tag
  while i < stop do
    local tag, after = read_tag(p, i, stop)
    if not tag then
      malformed("a field's tag is wrong or cut short")
    end
    local field = by_tag[tag]
    if field then
      i = read_field(after, stop, tag, columns[field.index])
    elseif plan.shape_by_tag[tag] then
      i = read_sizes(after, stop, tag, columns[plan.shape_by_tag[tag].index])
    else
      i = skip(p, after, stop, tag)
      if not i then
        malformed("an unknown field is cut short")
      end
    end
  end
  for j = 1, #plan.inputs do
    finish_row(columns[j])
  end
end

local function read_message(i, stop, columns)
  if not plan.batching then
    read_fields(i, stop, columns)
    return request.finish(plan, 1)
  end
  while i < stop do
    local tag, after = read_tag(p, i, stop)
    if not tag then
      malformed("a field's tag is wrong or cut short")
    end
    if tag == 10 then -- instances
      local from, upto = span(p, after, stop)
      if not from then
        malformed("an instance is longer than the message")
      end
      request.check_rows(plan, row + 1)
      read_fields(from, upto, columns)
      row = row + 1
      i = upto
    else
      i = skip(p, after, stop, tag)
      if not i then
        malformed("an unknown field is cut short")
      end
    end
  end
  if row == 0 then
    request.no_rows()
  end
  return request.finish(plan, row)
end

-- Checks the gRPC frame of `body`: a client's mistakes in framing.
function M.check_frame(body)
  if #body < 5 then
    errors.invalid("EMPTY_BODY", "", "the call carries no message; expected one gRPC message", "one message", #body .. " bytes")
  end
  local b = ffi.cast("const uint8_t *", body)
  if b[0] ~= 0 then
    errors.compressed("grpc-encoding", "a compressed message")
  end
  if protobuf.frame_size(b, 0) ~= #body - 5 then
    errors.invalid("MALFORMED_PROTOBUF", "", "the call does not carry exactly one gRPC message", protobuf.frame_size(b, 0) .. " bytes", #body - 5 .. " bytes")
  end
end

-- `body`: a framed PredictRequest; a framed ModelInferRequest. Throws errors of errors.lua.
function M.decode(spec, body)
  M.check_frame(body)
  plan, held, row = spec, body, 0
  p = ffi.cast("const uint8_t *", held)
  return read_message(5, #body, request.columns(spec))
end

return M
