-- Answers of a decoupled model as typed messages, one by one: ModelStreamInferResponse to PredictResponse.
--
-- Used by `tensors`. Works on the stream of chunks, wherever they are cut. A message that cannot be passed on ends the
-- answers: what comes after it is dropped, and the stream ends with its error.
local answers = require("answer")
local errors = require("errors")
local ffi = require("ffi")
local protobuf = require("protobuf")
local typed_write = require("typed_write")

local M = {}

local function malformed(what)
  errors.bad_answer("it is not valid protobuf: " .. what, "a ModelStreamInferResponse", what)
end

-- State of one stream. `parts`: chunks that wait, `have` bytes in all, until there are `need`.
function M.new(plan)
  return { plan = plan, parts = {}, have = 0, need = 5 }
end

-- The message in bytes i..stop-1 of `chunk`, framed for the caller; "" when it carries no answer.
local function message(plan, chunk, p, i, stop)
  local from, upto
  while i < stop do
    local tag, after = protobuf.tag(p, i, stop)
    local value, last
    if tag == 10 or tag == 18 then
      value, last = protobuf.span(p, after, stop)
    elseif tag then
      last = protobuf.skip(p, after, stop, tag)
    end
    if not last then
      malformed("an answer of the stream")
    elseif tag == 10 and last > value then
      errors.fail({
        code = errors.INTERNAL, reason = "SERVER_ERROR", hop = "server", message = ffi.string(p + value, last - value),
      })
    elseif tag == 18 then
      from, upto = value, last
    end
    i = last
  end
  if not from or not answers.has_outputs(p, from, upto) then
    return "" -- the end of a request's answers, which servers may mark
  end
  return typed_write.encode(plan, answers.parse_message(plan, chunk, from, upto))
end

local function check_frame(plan, p, i)
  local size = protobuf.frame_size(p, i)
  if p[i] ~= 0 then
    errors.bad_answer("it is compressed", "messages without compression", "a compressed one")
  elseif plan.max_bytes and size > plan.max_bytes then
    errors.bad_answer("an answer of the stream has " .. size .. " bytes", "at most " .. plan.max_bytes .. " bytes", size .. " bytes")
  end
  return size
end

-- The next bytes of the stream as the caller's; "" while a message is incomplete. Throws errors of errors.lua.
function M.edit(state, chunk)
  state.parts[#state.parts + 1] = chunk
  state.have = state.have + #chunk
  if state.have < state.need then
    return ""
  end
  chunk = table.concat(state.parts)
  local p, stop = ffi.cast("const uint8_t *", chunk), #chunk
  local made = {}
  local i, need = 0, 5
  while stop - i >= 5 do
    need = 5 + check_frame(state.plan, p, i)
    if i + need > stop then
      break
    end
    made[#made + 1] = message(state.plan, chunk, p, i + 5, i + need)
    i, need = i + need, 5
  end
  state.parts, state.have, state.need = { ffi.string(p + i, stop - i) }, stop - i, need
  return table.concat(made)
end

-- Throws when the stream ended within a message.
function M.finish(state)
  if state.have > 0 then
    malformed("the stream ends within an answer")
  end
end

return M
