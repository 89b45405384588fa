-- A version's filter_context compiled into what the readers and writers need, once per content hash.
--
-- Used by `tensors.lua`; knows nothing of requests. A plan also holds the caches that hang on a signature.
local ffi = require("ffi")
local protobuf = require("protobuf")
local text = require("text")

local M = {}

-- What each datatype is in memory. `pointer`: elements as read or written; `print`: how `digits` wants to see them;
-- `reader`: the loop of `leaves` that reads it; `wire`: wire type of one element in the typed message; `says`: the JSON a
-- caller should send; `range`: what is too much.
local DATATYPES = {
  BOOL = { width = 1, pointer = "uint8_t *", wire = 0, says = "true or false" },
  INT8 = { width = 1, reader = "int8", pointer = "int8_t *", wire = 2, says = "an integer from -128 to 127" },
  INT16 = { width = 2, reader = "int16", pointer = "int16_t *", wire = 5, says = "an integer from -32768 to 32767" },
  INT32 = { width = 4, reader = "int32", pointer = "int32_t *", wire = 5, says = "an integer from -2147483648 to 2147483647" },
  INT64 = { width = 8, reader = "int64", pointer = "int64_t *", wire = 1, says = "an integer of 64 bits" },
  UINT8 = { width = 1, reader = "uint8", pointer = "uint8_t *", wire = 2, says = "an integer from 0 to 255" },
  UINT16 = { width = 2, reader = "uint16", pointer = "uint16_t *", wire = 5, says = "an integer from 0 to 65535" },
  UINT32 = { width = 4, reader = "uint32", pointer = "uint32_t *", wire = 5, says = "an integer from 0 to 4294967295" },
  UINT64 = { width = 8, reader = "uint64", pointer = "uint64_t *", wire = 1, says = "an integer from 0 to 18446744073709551615" },
  FP16 = { width = 2, pointer = "uint16_t *", wire = 5, says = "a number", range = "a magnitude below 65520" },
  BF16 = { width = 2, pointer = "uint16_t *", wire = 5, says = "a number", range = "a magnitude below 3.39e38" },
  FP32 = { width = 4, reader = "float32", pointer = "float *", print = "const uint32_t *", wire = 5, says = "a number", range = "a magnitude below 3.41e38" },
  FP64 = { width = 8, reader = "float64", pointer = "double *", print = "const uint32_t *", wire = 1, says = "a number", range = "a magnitude below 1.8e308" },
  BYTES = { width = 0, wire = 2, says = 'a string, or {"b64": "..."}' },
}
for _, kind in pairs(DATATYPES) do
  if kind.pointer then
    kind.pointer_t = ffi.typeof(kind.pointer)
    kind.print_t = ffi.typeof(kind.print or "const " .. kind.pointer)
  end
end

local function compile_field(entry, index)
  local kind = DATATYPES[entry.datatype]
  if not kind then
    error("unknown datatype " .. tostring(entry.datatype))
  end
  local number = entry.number
  local field = {
    index = index,
    name = entry.name,
    proto_name = entry.proto_name,
    datatype = entry.datatype,
    width = kind.width,
    reader = kind.reader,
    is_bytes = entry.datatype == "UINT8" or entry.datatype == "INT8",
    says = kind.says,
    range = kind.range or kind.says,
    pointer_t = kind.pointer_t,
    print_t = kind.print_t,
    repeated = entry.repeated,
    optional = entry.optional,
    shape_field = entry.shape_field,
    rank = #entry.shape,
    shape = entry.shape,
    fixed = 1,
    dynamic = {},
    json_key = text.json_string(entry.name),
    -- Tags of the typed message: one element on its own; many together.
    tag = protobuf.tag_bytes(number, kind.wire),
    packed_tag = protobuf.tag_bytes(number, protobuf.LENGTH),
    tag_number = number * 8 + kind.wire,
    packed_tag_number = number * 8 + protobuf.LENGTH,
    number = number,
  }
  for d, size in ipairs(entry.shape) do
    if size < 0 then
      field.dynamic[#field.dynamic + 1] = d
    else
      field.fixed = field.fixed * size
    end
  end
  field.static = #field.dynamic == 0
  -- Whether the number of values leaves the shape open; whether all of a row must be read before its shape is checked.
  field.needs_shape = #field.dynamic > 1 or not field.static and field.fixed == 0
  field.late = field.optional or field.shape_field ~= nil
  if field.shape_field then
    field.shape_tag = protobuf.tag_bytes(field.shape_field.number, protobuf.LENGTH)
  end
  return field
end

local function compile_fields(entries)
  local fields, by_name = {}, {}
  for index, entry in ipairs(entries) do
    local field = compile_field(entry, index)
    fields[index] = field
    by_name[field.name] = field
  end
  return fields, by_name
end

-- The table whose text the control plane wrote. It is data: nothing is in reach of a chunk without an environment.
function M.table_of(text_of_table)
  local chunk = assert(loadstring("return " .. text_of_table, "=context"))
  return setfenv(chunk, {})()
end

-- `context`: the filter_context as a table (fields: README.md).
function M.compile(context)
  local plan = {
    model = context.model,
    version = context.version,
    served_name = context.served_name,
    served_version = context.served_version,
    batching = context.batching,
    max_rows = context.max_rows,
    max_bytes = context.max_bytes,
    -- The limit as errors name it, with where it is set.
    max_bytes_words = (context.max_bytes or 0) .. " bytes" .. ((context.max_bytes_from or "") ~= "" and " (" .. context.max_bytes_from .. ")" or ""),
    timeout_words = (context.timeout_s or 0) .. " s (penstock up --prediction-timeout)",
    kind = context.kind,
    stream = context.kind == "grpc_stream",
  }
  plan.inputs, plan.input_by_name = compile_fields(context.inputs)
  plan.outputs, plan.output_by_name = compile_fields(context.outputs)
  plan.label = plan.output_by_name[context.label or ""]

  plan.by_tag = {}
  plan.shape_by_tag, plan.shape_by_name = {}, {}
  plan.static = true
  plan.sized = true
  for _, field in ipairs(plan.inputs) do
    plan.by_tag[field.tag_number] = field
    if field.repeated then
      plan.by_tag[field.packed_tag_number] = field
    end
    local companion = field.shape_field
    if companion then
      plan.shape_by_name[companion.name] = field
      plan.shape_by_tag[companion.number * 8 + protobuf.FIXED64] = field
      plan.shape_by_tag[companion.number * 8 + protobuf.LENGTH] = field
    end
    plan.late = plan.late or field.late
    plan.static = plan.static and field.static and not field.optional
    plan.sized = plan.sized and field.width > 0
  end

  -- The parts of a ModelInferRequest that never change.
  plan.request_start = protobuf.field(1, plan.served_name) .. protobuf.field(2, plan.served_version)
  local wanted = {}
  for i, field in ipairs(plan.outputs) do
    wanted[i] = protobuf.field(6, protobuf.field(1, field.name))
  end
  plan.request_end = table.concat(wanted)
  for _, field in ipairs(plan.inputs) do
    field.meta_start = protobuf.field(1, field.name) .. protobuf.field(2, field.datatype)
  end

  plan.heads, plan.heads_count = {}, 0 -- see request.lua
  plan.metas, plan.metas_count = {}, 0 -- see answer.lua
  return plan
end

return M
