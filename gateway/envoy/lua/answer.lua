-- A framed ModelInferResponse, taken apart and verified against the contract.
--
-- Used by the two writers and by labels. Everything a server can get wrong is caught here, before a byte of the reply is
-- written: frame, protobuf, missing outputs, datatype, shape, number of rows, length of the data.
local contents = require("contents")
local errors = require("errors")
local ffi = require("ffi")
local protobuf = require("protobuf")

local bad = errors.bad_answer
local read_tag, span, skip = protobuf.tag, protobuf.span, protobuf.skip

local M = {}

-- Descriptions of outputs that have been checked, kept per plan; they differ by row count and dynamic shape only.
local MOST_METAS = 512
-- Longer ones are not worth keeping; those with the data inside (`contents`) never are.
local LONGEST_META = 512
-- Beyond, a double is not exact; a negative size is beyond too.
local LARGEST_DIMENSION = 9007199254740992
-- Arrays without values that are written at most: a shape such as [2147483647, 0] has no byte of data to bound it.
local MOST_EMPTY_ARRAYS = 1048576

local function malformed(what)
  bad("it is not valid protobuf: " .. what, "a ModelInferResponse", what)
end

-- One InferOutputTensor: name, datatype, dims, spans of its `contents`.
local function parse_meta(p, i, stop)
  local meta = { dims = {}, contents = {} }
  while i < stop do
    local tag, after = read_tag(p, i, stop)
    if not tag then
      malformed("an output's tag")
    end
    local from, upto
    if tag % 8 == protobuf.LENGTH then
      from, upto = span(p, after, stop)
      if not from then
        malformed("an output is cut short")
      end
    end
    if tag == 10 then
      meta.name = ffi.string(p + from, upto - from)
    elseif tag == 18 then
      meta.datatype = ffi.string(p + from, upto - from)
    elseif tag == 26 then
      local j = from
      while j < upto do
        local size
        size, j = protobuf.varint(p, j, upto)
        if not size or size > LARGEST_DIMENSION then
          malformed("an output's shape")
        end
        meta.dims[#meta.dims + 1] = size
      end
    elseif tag == 24 then
      local size
      size, upto = protobuf.varint(p, after, stop)
      if not size or size > LARGEST_DIMENSION then
        malformed("an output's shape")
      end
      meta.dims[#meta.dims + 1] = size
    elseif tag == 42 then
      meta.contents[#meta.contents + 1] = from
      meta.contents[#meta.contents + 1] = upto
    end
    i = upto or skip(p, after, stop, tag)
    if not i then
      malformed("an output is cut short")
    end
  end
  return meta
end

local function shape_text(dims)
  return "[" .. table.concat(dims, ", ") .. "]"
end

-- Finds the contract's output for a description and checks datatype and shape; nil for an output nobody asked for.
local function check_meta(plan, meta)
  local field = plan.output_by_name[meta.name or ""]
  if not field then
    return nil
  end
  if meta.datatype ~= field.datatype then
    bad("output " .. field.name .. " is " .. tostring(meta.datatype) .. ", expected " .. field.datatype, field.datatype, tostring(meta.datatype))
  end
  local skip_dims = plan.batching and 1 or 0
  local good = #meta.dims == field.rank + skip_dims
  if field.rank == 0 and #meta.dims == skip_dims + 1 then
    good = meta.dims[skip_dims + 1] == 1 -- Triton has no tensors of rank 0: a scalar is one element
  end
  local count, dims = 1, {}
  for d = 1, good and field.rank or 0 do
    local size = meta.dims[d + skip_dims]
    good = good and (field.shape[d] < 0 or field.shape[d] == size)
    dims[d] = size
    count = count * size
  end
  if not good then
    local expected = plan.batching and { "rows", unpack(field.shape) } or field.shape
    bad(
      "output " .. field.name .. " has shape " .. shape_text(meta.dims) .. ", expected " .. shape_text(expected),
      shape_text(expected), shape_text(meta.dims)
    )
  end
  local rows = plan.batching and meta.dims[1] or 1
  if rows * count == 0 then
    local arrays = rows
    for d = 1, field.rank - 1 do
      arrays = arrays * math.max(dims[d], 1)
    end
    if arrays > MOST_EMPTY_ARRAYS then
      bad("output " .. field.name .. " has shape " .. shape_text(meta.dims) .. " and no values", "fewer empty arrays", shape_text(meta.dims))
    end
  end
  return { field = field, rows = rows, dims = dims, count = count }
end

local meta_from, meta_to, raw_from, raw_to = {}, {}, {}, {}

-- Length in bytes of the BYTES element at p[i] (its first four bytes).
local function element_size(p, i)
  return p[i] + p[i + 1] * 256 + p[i + 2] * 65536 + p[i + 3] * 16777216
end
M.element_size = element_size

local function check_bytes(p, i, stop, field, elements)
  for _ = 1, elements do
    if i + 4 > stop then
      bad("output " .. field.name .. " ends before its last element", elements .. " elements", "fewer")
    end
    i = i + 4 + element_size(p, i)
    if i > stop then
      bad("output " .. field.name .. " has an element longer than its data", elements .. " elements", "fewer")
    end
  end
  if i ~= stop then
    bad("output " .. field.name .. " goes on after its last element", elements .. " elements", "more")
  end
end

-- Takes the ModelInferResponse in bytes i..stop-1 of `body` apart (indices from 0). The result has `rows` and, per output of
-- the contract, `tensors[j]`: `p` and `at` (its bytes), `size`, `dims`, `count` (elements per row). Valid until `body` is
-- let go; `held` keeps it.
function M.parse_message(plan, body, i, stop)
  local p = ffi.cast("const uint8_t *", body)
  local metas, raws = 0, 0
  local id
  while i < stop do
    local tag, after = read_tag(p, i, stop)
    if not tag then
      malformed("a field's tag")
    end
    if tag == 42 or tag == 50 or tag == 26 then
      local from, upto = span(p, after, stop)
      if not from then
        malformed("a field is cut short")
      end
      if tag == 42 then
        metas = metas + 1
        meta_from[metas], meta_to[metas] = from, upto
      elseif tag == 50 then
        raws = raws + 1
        raw_from[raws], raw_to[raws] = from, upto
      else
        id = ffi.string(p + from, upto - from)
      end
      i = upto
    else
      i = skip(p, after, stop, tag)
      if not i then
        malformed("a field is cut short")
      end
    end
  end
  if raws > 0 and raws ~= metas then
    bad("it has " .. metas .. " outputs and the data of " .. raws, metas .. " raw contents", raws)
  end

  local answer = { tensors = {}, held = { body }, rows = nil }
  local found = 0
  for k = 1, metas do
    local from, size = meta_from[k], meta_to[k] - meta_from[k]
    local checked, parsed
    local key = raws > 0 and size <= LONGEST_META and ffi.string(p + from, size) or nil
    checked = key and plan.metas[key]
    if not checked then
      parsed = parse_meta(p, from, meta_to[k])
      checked = check_meta(plan, parsed) or "unwanted"
      if key then
        if plan.metas_count >= MOST_METAS then
          plan.metas, plan.metas_count = {}, 0
        end
        plan.metas[key] = checked
        plan.metas_count = plan.metas_count + 1
      end
    end
    if checked ~= "unwanted" then
      local field = checked.field
      local tensor = { dims = checked.dims, count = checked.count }
      if raws > 0 then
        tensor.p, tensor.at, tensor.size = p, raw_from[k], raw_to[k] - raw_from[k]
      else
        local raw = contents.raw(p, parsed.contents, field)
        answer.held[#answer.held + 1] = raw
        tensor.p, tensor.at, tensor.size = ffi.cast("const uint8_t *", raw), 0, #raw
      end
      if answer.tensors[field.index] then
        bad("output " .. field.name .. " is there twice", "one", "two")
      end
      if answer.rows and answer.rows ~= checked.rows then
        bad("output " .. field.name .. " has " .. checked.rows .. " rows, another has " .. answer.rows, answer.rows .. " rows", checked.rows .. " rows")
      end
      answer.rows = checked.rows
      local elements = checked.rows * checked.count
      if field.width > 0 then
        if tensor.size ~= elements * field.width then
          bad(
            "output " .. field.name .. " has " .. tensor.size .. " bytes, expected " .. elements * field.width,
            elements * field.width .. " bytes", tensor.size .. " bytes"
          )
        end
      else
        check_bytes(tensor.p, tensor.at, tensor.at + tensor.size, field, elements)
      end
      answer.tensors[field.index] = tensor
      found = found + 1
    end
  end
  if found < #plan.outputs then
    for j, field in ipairs(plan.outputs) do
      if not answer.tensors[j] then
        bad("output " .. field.name .. " is missing", field.name, "nothing")
      end
    end
  end
  answer.rows = answer.rows or 1
  -- The request's id was its number of rows. Servers that do not repeat the id are not checked; each answer of a stream has
  -- as many rows as the model likes.
  if plan.batching and not plan.stream and id and id ~= "" and id ~= tostring(answer.rows) then
    bad("it has " .. answer.rows .. " rows for a request of " .. id, id .. " rows", answer.rows .. " rows")
  end
  return answer
end

-- Whether the ModelInferResponse p[i..stop-1] has any output. The last message of a decoupled model may have none.
function M.has_outputs(p, i, stop)
  while i < stop do
    local tag, after = read_tag(p, i, stop)
    if not tag or tag == 42 then
      return true -- malformed ones are found by who parses them
    end
    i = skip(p, after, stop, tag)
    if not i then
      return true
    end
  end
  return false
end

-- The same for a whole body: exactly one framed message.
function M.parse(plan, body)
  local stop = #body
  local p = ffi.cast("const uint8_t *", body)
  if stop < 5 or p[0] ~= 0 or protobuf.frame_size(p, 0) ~= stop - 5 then
    bad(
      stop == 0 and "it is empty" or stop >= 5 and p[0] ~= 0 and "it is compressed" or "it is not exactly one gRPC message",
      "one message", stop .. " bytes"
    )
  end
  return M.parse_message(plan, body, 5, stop)
end

return M
