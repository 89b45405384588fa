-- Envoy filter `penstock.tensors`: typed JSON and typed gRPC to the inference server's message and back; public names on
-- Open Inference Protocol.
--
-- The second of the two filters, after routing (`clear_route_cache: false`: it rewrites :path and must not choose the
-- route again). What to do comes with the route or weighted entry that was chosen, which request and response see alike:
-- an id as filter_context and, in the route's metadata under that id, the rest. Everything runs in a pcall: a fault answers
-- INTERNAL, never a half-rewritten body.
local answers = require("answer")
local calls = require("calls")
local connect_json = require("connect_json")
local errors = require("errors")
local json_read = require("json_read")
local json_write = require("json_write")
local label = require("label")
local loops = require("loops")
local names = require("names")
local oip_grpc = require("oip_grpc")
local oip_http = require("oip_http")
local plans = require("plan")
local replies = require("replies")
local stream_answer = require("stream_answer")
local text = require("text")
local typed_read = require("typed_read")
local typed_write = require("typed_write")
local web = require("web")

local value_of = replies.value_of

local INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"
local STREAM_PATH = "/inference.GRPCInferenceService/ModelStreamInfer"
local READY_PATH = "/inference.GRPCInferenceService/ModelReady"
local NAMESPACE = "penstock"

-- Bodies beyond this leave garbage worth collecting at once; otherwise a worker's memory stays at its peak.
local BIG_BODY = 8 * 1024 * 1024
-- Contexts kept; old versions leave theirs behind.
local MOST_PLANS = 4096

local compiled, compiled_count = {}, 0

local function plan_of(handle)
  local context = handle:filterContext()
  local id = context and context:get("id")
  if not id then
    return nil
  end
  local plan = compiled[id]
  if not plan then
    -- Not in the filter_context: Envoy copies all of that whenever it is asked for.
    plan = plans.compile(plans.table_of(handle:metadata():get(id)))
    if compiled_count >= MOST_PLANS then
      compiled, compiled_count = {}, 0
    end
    compiled[id] = plan
    compiled_count = compiled_count + 1
  end
  return plan
end

local function collect(size)
  if size > BIG_BODY then
    collectgarbage()
  end
end

-- Refuses a body beyond the model's limit. Envoy's own limit is the larger of the route's and the connection's window, so
-- smaller limits are enforced here.
local function check_size(plan, size)
  if plan.max_bytes and size > plan.max_bytes then
    errors.fail({
      code = errors.RESOURCE_EXHAUSTED, http = 413, reason = "TOO_LARGE",
      message = "the body has " .. size .. " bytes; this model's limit is " .. plan.max_bytes_words,
      expected = "at most " .. plan.max_bytes .. " bytes", received = size .. " bytes",
      limit = plan.max_bytes_words, try = "send fewer instances per request",
    })
  end
  loops.count(size)
end

-- Requests, by kind. Headers are fetched again after every body(): those from before it are dead.

local function json_request(handle, plan)
  calls.check_json(handle:headers())
  local body = handle:body()
  local size = body and body:length() or 0
  check_size(plan, size)
  local message = json_read.decode(plan, size > 0 and body:getBytes(0, size) or "")
  body:setBytes(message)
  local headers = handle:headers()
  headers:replace(":path", INFER_PATH)
  headers:replace("content-type", "application/grpc")
  headers:replace("te", "trailers")
  headers:remove("content-length")
  collect(size)
end

local function typed_request(handle, plan)
  local headers = handle:headers()
  local content_type = value_of(headers, "content-type")
  local form = not web.is_grpc(content_type) and calls.web_form(headers, plan, content_type) or nil
  local body = handle:body()
  local size = body and body:length() or 0
  check_size(plan, size)
  local bytes = size > 0 and body:getBytes(0, size) or ""
  local message
  if form == "connect_json" then
    message = json_read.decode(plan, bytes)
  else
    message = typed_read.decode(plan, form and web.framed(form, bytes) or bytes)
  end
  if not body then
    errors.invalid("EMPTY_BODY", "", "the body is empty", "a PredictRequest", "nothing")
  end
  body:setBytes(message)
  if form then
    calls.web_to_grpc(handle, form)
  end
  headers = handle:headers()
  headers:replace(":path", INFER_PATH)
  headers:remove("content-length")
  collect(size)
end

-- A typed call to a decoupled model: one message, so the same as any other, to the method that answers with many.
local function stream_request(handle, plan)
  typed_request(handle, plan)
  local headers = handle:headers()
  headers:replace(":path", STREAM_PATH)
  headers:replace("triton_grpc_error", "true") -- Triton then ends the stream with a status, not with a message of text
end

-- Typed JSON to a decoupled model. The body is not read: replies.refuse does that.
local function json_refusal(_, plan)
  calls.stream_only(plan, "JSON over HTTP does not carry")
end

-- Open Inference bodies go through without being gathered here: their size is what the header `name` says, if it does.
local function check_told_size(plan, headers, name)
  local size = tonumber(value_of(headers, name) or nil)
  if size then
    check_size(plan, size)
  end
end

local function oip_http_request(handle, plan)
  local headers = handle:headers()
  check_told_size(plan, headers, "content-length")
  headers:replace(":path", oip_http.path(plan, value_of(headers, ":path")))
  headers:remove("accept-encoding") -- names are restored in the answer's text
end

local function oip_grpc_request(handle, plan)
  local headers = handle:headers()
  check_told_size(plan, headers, replies.SIZE_HEADER)
  headers:remove("content-length")
  local state = oip_grpc.new(plan, false)
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    if size > 0 then
      chunk:setBytes(oip_grpc.edit(state, chunk:getBytes(0, size)))
    end
  end
end

-- Answers, by kind. Each returns the gRPC status of the call, and the label when there is one.

local function status_of_headers(headers)
  return tonumber(value_of(headers, "grpc-status"))
end

-- An error that the server itself reported.
local function server_error(plan, code, message)
  if code == errors.DEADLINE_EXCEEDED then
    -- The server has the caller's deadline too, and may be the first to see it pass.
    return {
      code = code, reason = "DEADLINE", hop = "server", limit = plan.timeout_words .. ", or the caller's own in grpc-timeout",
      message = "the prediction did not finish within the caller's own deadline or its time limit of " .. plan.timeout_words,
    }
  end
  return {
    code = code, reason = "SERVER_ERROR", hop = "server",
    message = message ~= "" and message or "the inference server reported an error without saying which",
    retry_s = code == errors.UNAVAILABLE and replies.RETRY_S or nil,
  }
end

-- The server's whole answer: status, message, and the body wrapper. A status in the headers means there is no body.
local function whole_answer(handle)
  local headers = handle:headers()
  local code = status_of_headers(headers)
  if code then
    return code, text.unpercent(value_of(headers, "grpc-message") or ""), nil
  end
  -- With headers and trailers but no data the first body(true) is nil; a second one gives the wrapper.
  local body = handle:body(true) or handle:body(true)
  local trailers = handle:trailers()
  code = trailers and tonumber(value_of(trailers, "grpc-status")) or errors.UNKNOWN
  if code == errors.OK then
    return code, "", body
  end
  local message = trailers and value_of(trailers, "grpc-message")
  return code, text.unpercent(message or ""), body
end

local function body_bytes(body)
  local size = body and body:length() or 0
  loops.count(size)
  return size > 0 and body:getBytes(0, size) or ""
end

-- The server's answer as the caller's, and its label. Not a closure in each pcall: that would be made anew per request.
local function rewrite_answer(encode, plan, bytes)
  local answer = answers.parse(plan, bytes)
  return encode(plan, answer), plan.label and label.of(plan, answer)
end

-- What a pcall around a server's answer caught: an error for the caller and, unless the server reported it itself, a line in
-- the log.
local function caught_answer(handle, plan, thrown)
  local info = errors.caught(thrown)
  if info.reason ~= "SERVER_ERROR" then
    handle:logErr("penstock.tensors: " .. plan.served_name .. ": " .. (info.fault or info.message))
  end
  return info
end

-- A unary answer. `encode` writes a good one; `reply(handle, body, bytes, info)` gives the caller that, or an error.
local function unary_answer(handle, plan, encode, reply)
  local code, message, body = whole_answer(handle)
  if code ~= errors.OK then
    reply(handle, body, nil, server_error(plan, code, message))
    return code
  end
  local ok, bytes, found = pcall(rewrite_answer, encode, plan, body_bytes(body))
  if not ok then
    local info = caught_answer(handle, plan, bytes)
    reply(handle, body, nil, info)
    return info.code
  end
  reply(handle, body, bytes)
  collect(#bytes)
  return code, found
end

-- Makes a gRPC answer a plain HTTP one.
local function http_reply(handle, body, bytes, status, content_type)
  body = body or handle:body(true) or handle:body(true)
  body:setBytes(bytes)
  local headers = handle:headers()
  headers:replace(":status", tostring(status))
  headers:replace("content-type", content_type)
  headers:remove("grpc-status")
  headers:remove("grpc-message")
  headers:remove("grpc-status-details-bin")
  local trailers = handle:trailers()
  if trailers then
    trailers:remove("grpc-status")
    trailers:remove("grpc-message")
    trailers:remove("grpc-status-details-bin")
  end
end

local function json_reply(handle, body, bytes, info)
  http_reply(handle, body, bytes or errors.json(info), info and errors.http_status(info.code) or 200, "application/json")
  if info and info.retry_s then
    handle:headers():replace("retry-after", tostring(info.retry_s))
  end
end

local function json_answer(handle, plan)
  return unary_answer(handle, plan, json_write.encode, json_reply)
end

local function set_grpc_error(target, info)
  -- Details that the server itself gave with its error say more.
  if info.reason ~= "SERVER_ERROR" or not value_of(target, "grpc-status-details-bin") then
    for name, value in pairs(errors.grpc_headers(info)) do
      target:replace(name, value)
    end
  end
end

local function typed_reply(handle, body, bytes, info)
  if info then
    set_grpc_error(body and handle:trailers() or handle:headers(), info)
  end
  if bytes or body and body:length() > 0 then
    body:setBytes(bytes or "")
  end
end

local function web_answer(handle, plan, form)
  local function reply(_, body, bytes, info)
    if info then
      local status, content_type, refusal = web.refusal(form, info)
      http_reply(handle, body, refusal, status, content_type)
    else
      http_reply(handle, body, web.answer(form, bytes), 200, web.CONTENT_TYPES[form])
    end
  end
  return unary_answer(handle, plan, form == "connect_json" and connect_json.encode or typed_write.encode, reply)
end

local function typed_answer(handle, plan)
  local left = handle:streamInfo():dynamicMetadata():get(web.NAMESPACE)
  if left then
    return web_answer(handle, plan, left.form)
  end
  return unary_answer(handle, plan, typed_write.encode, typed_reply)
end

-- The answers of a decoupled model, one by one as they come.
local function stream_of_answers(handle, plan)
  local headers = handle:headers()
  local code = status_of_headers(headers)
  if code then
    set_grpc_error(headers, server_error(plan, code, text.unpercent(value_of(headers, "grpc-message") or "")))
    return code
  end
  local state, failed = stream_answer.new(plan), nil
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    if size > 0 then
      local ok, bytes = true, ""
      if not failed then
        ok, bytes = pcall(stream_answer.edit, state, chunk:getBytes(0, size))
      end
      if not ok then
        failed = caught_answer(handle, plan, bytes)
      end
      chunk:setBytes(ok and bytes or "")
    end
  end
  local trailers = handle:trailers()
  code = trailers and tonumber(value_of(trailers, "grpc-status")) or errors.UNKNOWN
  if code == errors.OK and not failed then
    local ok, thrown = pcall(stream_answer.finish, state)
    failed = not ok and caught_answer(handle, plan, thrown) or nil
  elseif code ~= errors.OK then
    failed = server_error(plan, code, trailers and text.unpercent(value_of(trailers, "grpc-message") or "") or "")
  end
  if failed then
    set_grpc_error(trailers or handle:headers(), failed)
    return failed.code
  end
  return code
end

local function oip_http_answer(handle, plan)
  local headers = handle:headers()
  local status = tonumber(value_of(headers, ":status")) or 500
  local code = errors.code_of_http(status)
  local content_type = value_of(headers, "content-type") or ""
  local json_size = tonumber(value_of(headers, "inference-header-content-length"))
  if not json_size and content_type:sub(1, 16) ~= "application/json" then
    return code
  end
  local body = handle:body(true) or handle:body(true)
  local size = body and body:length() or 0
  if size == 0 then
    return code
  end
  local bytes = body:getBytes(0, math.min(json_size or size, size))
  if code ~= errors.OK then
    if status == 500 and oip_http.blames_caller(bytes) then
      handle:headers():replace(":status", "400")
      return errors.INVALID_ARGUMENT
    end
    return code
  end
  local restored = oip_http.restore(plan, bytes)
  if restored ~= bytes then
    if json_size and json_size < size then
      body:setBytes(restored .. body:getBytes(json_size, size - json_size))
    else
      body:setBytes(restored)
    end
    if json_size then
      handle:headers():replace("inference-header-content-length", tostring(#restored))
    end
  end
  return code
end

local function oip_grpc_answer(handle, plan)
  local headers = handle:headers()
  local code = status_of_headers(headers)
  if code then
    return code
  end
  local state = oip_grpc.new(plan, true)
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    if size > 0 then
      chunk:setBytes(oip_grpc.edit(state, chunk:getBytes(0, size)))
    end
  end
  local trailers = handle:trailers()
  return trailers and tonumber(value_of(trailers, "grpc-status")) or errors.UNKNOWN
end

local REQUEST = {
  json = json_request, json_refused = json_refusal, grpc = typed_request, grpc_stream = stream_request,
  oip_http = oip_http_request, oip_grpc = oip_grpc_request,
}
local ANSWER = {
  json = json_answer, json_refused = json_answer, grpc = typed_answer, grpc_stream = stream_of_answers,
  oip_http = oip_http_answer, oip_grpc = oip_grpc_answer,
}

-- A model, or a version of it, that the routes have nothing for. Open Inference Protocol's ModelReady says "no" of that, where
-- other calls are refused; a script cannot make a gRPC answer with a body, so the control plane makes it.
local function without_plan(handle)
  local headers = handle:headers()
  if value_of(headers, ":path") == READY_PATH then
    headers:replace("x-penstock-model", names.SYSTEM)
    handle:clearRouteCache()
  end
end

local function on_request(handle)
  local plan = plan_of(handle)
  if not plan then
    without_plan(handle)
    return
  end
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set(NAMESPACE, "model", plan.model)
  metadata:set(NAMESPACE, "version", plan.version)
  REQUEST[plan.kind](handle, plan)
end

-- gRPC status that a local reply of Envoy stands for.
local function status_of_local(headers, details)
  if details:find("payload_too_large", 1, true) then
    return errors.RESOURCE_EXHAUSTED
  elseif details:find("timeout", 1, true) then
    return errors.DEADLINE_EXCEEDED
  end
  return status_of_headers(headers) or errors.code_of_http(tonumber(value_of(headers, ":status")) or 500)
end

local function on_response(handle)
  local plan = plan_of(handle)
  if not plan then
    return
  end
  local headers = handle:headers()
  local details = value_of(headers, "x-penstock-local")
  local code, found
  if details then
    code = status_of_local(headers, details) -- model.lua gives it its shape, and cannot know the model's limits
    if code == errors.RESOURCE_EXHAUSTED then
      headers:replace("x-penstock-local-limit", plan.max_bytes_words)
    elseif code == errors.DEADLINE_EXCEEDED then
      headers:replace("x-penstock-local-limit", plan.timeout_words)
    end
  else
    code, found = ANSWER[plan.kind](handle, plan)
  end
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set(NAMESPACE, "gs", tostring(code))
  if found then
    metadata:set(NAMESPACE, "label", found)
  end
end

function envoy_on_request(handle)
  local ok, thrown = pcall(on_request, handle)
  if not ok then
    replies.refuse(handle, errors.caught(thrown))
  end
end

-- The answers catch their own errors; what arrives here is a fault of this script, and the answer must not look good.
function envoy_on_response(handle)
  local ok, thrown = pcall(on_response, handle)
  if not ok then
    handle:logErr("penstock.tensors: " .. tostring(thrown))
    local info = errors.caught(thrown)
    pcall(function()
      handle:streamInfo():dynamicMetadata():set(NAMESPACE, "gs", tostring(info.code))
      local headers = handle:headers()
      if (value_of(headers, "content-type") or ""):sub(1, 16) == "application/grpc" then
        set_grpc_error(handle:trailers() or headers, info)
      else
        headers:replace(":status", "500")
      end
    end)
  end
end
