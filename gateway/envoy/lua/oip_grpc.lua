-- Open Inference Protocol gRPC: the server's own model name and version in requests, the public ones in answers.
--
-- Works on the stream of chunks, message by message, and so for unary calls and for ModelStreamInfer alike. A request
-- gets fields 1 and 2 (name and version in all five requests) appended: the last one wins. In an answer they stand
-- first, as every protobuf library writes fields in order, and are replaced there.
local errors = require("errors")
local ffi = require("ffi")
local protobuf = require("protobuf")

local field, span, tag_of, varint = protobuf.field, protobuf.span, protobuf.tag, protobuf.varint

local M = {}

-- Names and versions of any real model fit in as many bytes at the start of an answer.
local MOST_HEAD = 1024

local function suffix_of(plan)
  plan.oip_suffix = plan.oip_suffix or field(1, plan.served_name) .. field(2, plan.served_version)
  return plan.oip_suffix
end

-- State of one direction of one call.
-- `pending`: bytes that wait for the rest of a frame's start; `left`: bytes of the current message still to pass on.
function M.new(plan, is_answer)
  return { plan = plan, pending = "", left = 0, is_answer = is_answer, in_message = false }
end

-- Replaces the names at the start of one message of an answer: bytes consumed, and what stands in their place.
local function rename(plan, p, i, stop)
  local start = i
  local parts = {}
  while i < stop do
    local tag, after = tag_of(p, i, stop)
    if tag ~= 10 and tag ~= 18 then
      break
    end
    local size, from = varint(p, after, stop)
    if not size then
      break
    end
    local upto = from + size
    local inner_stop = upto <= stop and upto or stop
    local value = size <= 256 and upto <= stop and ffi.string(p + from, size)
    if tag == 10 and value == plan.served_name then
      parts[#parts + 1] = field(1, plan.model)
      i = upto
    elseif tag == 18 and value == plan.served_version then
      parts[#parts + 1] = field(2, plan.version)
      i = upto
    else
      -- A message that starts with the name: ModelConfig, ModelStatistics, the answer within a stream's answer.
      local consumed, inner = 0, ""
      if inner_stop > from and p[from] == 10 then
        consumed, inner = rename(plan, p, from, inner_stop)
      end
      if consumed == 0 then
        break
      end
      parts[#parts + 1] = protobuf.tag_bytes(tag == 10 and 1 or 2, protobuf.LENGTH) .. protobuf.varint_bytes(size + #inner - consumed) .. inner
      if upto > stop then -- the rest of it is not here, and has no names to replace
        return from + consumed - start, table.concat(parts)
      end
      parts[#parts + 1] = ffi.string(p + from + consumed, size - consumed)
      i = upto
    end
  end
  return i - start, table.concat(parts)
end

-- The next chunk of bytes as it should go on; "" while the start of a frame is incomplete.
function M.edit(state, chunk)
  local plan = state.plan
  if #state.pending > 0 then
    chunk = state.pending .. chunk
    state.pending = ""
  end
  local p, stop = ffi.cast("const uint8_t *", chunk), #chunk
  local suffix = state.is_answer and "" or suffix_of(plan)
  local parts = {}
  local i = 0
  while true do
    if state.in_message then
      local take = math.min(state.left, stop - i)
      if take > 0 then
        parts[#parts + 1] = (i == 0 and take == stop) and chunk or ffi.string(p + i, take)
        state.left = state.left - take
        i = i + take
      end
      if state.left > 0 then
        break
      end
      parts[#parts + 1] = suffix
      state.in_message = false
    end
    if stop - i < 5 then
      state.pending = ffi.string(p + i, stop - i)
      break
    end
    local size = protobuf.frame_size(p, i)
    if p[i] ~= 0 then
      errors.compressed("grpc-encoding", "a compressed message")
    end
    if state.is_answer then
      if stop - i - 5 < math.min(size, MOST_HEAD) then
        state.pending = ffi.string(p + i, stop - i)
        break
      end
      local head_stop = math.min(i + 5 + size, stop)
      local consumed, head = rename(plan, p, i + 5, head_stop)
      parts[#parts + 1] = protobuf.frame(size + #head - consumed) .. head
      state.left = size - consumed
      i = i + 5 + consumed
    else
      parts[#parts + 1] = protobuf.frame(size + #suffix)
      state.left = size
      i = i + 5
    end
    state.in_message = true
  end
  return table.concat(parts)
end

-- Name and pinned version that an Open Inference request carries in fields 1 and 2, read without copying the body.
-- `bytes_at(from, size)` gives bytes of the body, `size` its length. Nil name: there is none.
function M.peek(bytes_at, total)
  if total < 5 then
    return nil
  end
  local start = bytes_at(0, math.min(total, MOST_HEAD))
  local p, stop = ffi.cast("const uint8_t *", start), #start
  if p[0] ~= 0 then
    errors.compressed("grpc-encoding", "a compressed message")
  end
  local name, version
  local i, base = 5, 0 -- `base`: where in the body the bytes of `p` begin
  while base + i < total do
    if stop - i < 320 and base + stop < total then -- enough for a tag, a length and the longest name
      base = base + i
      start = bytes_at(base, math.min(total - base, MOST_HEAD))
      p, stop, i = ffi.cast("const uint8_t *", start), #start, 0
    end
    local tag, after = tag_of(p, i, stop)
    if not tag then
      break
    end
    if tag == 10 or tag == 18 then
      local from, upto = span(p, after, stop)
      if not from then
        break
      end
      local value = ffi.string(p + from, upto - from)
      if tag == 10 then
        name = value
      else
        version = value
      end
      i = upto
      if name and version then
        break
      end
    elseif name then
      break -- written in order, as every library does: no version will follow
    elseif tag % 8 == protobuf.LENGTH then
      local size
      size, i = varint(p, after, stop)
      if not size then
        break
      end
      i = i + size
      if i > stop then -- skip over bytes that were not fetched
        base, i = base + i, 0
        if base >= total then
          break
        end
        start = bytes_at(base, math.min(total - base, MOST_HEAD))
        p, stop = ffi.cast("const uint8_t *", start), #start
      end
    else
      i = protobuf.skip(p, after, stop, tag)
      if not i then
        break
      end
    end
  end
  return name, version
end

return M
