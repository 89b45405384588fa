-- What is said about a typed call before its body is read: its method, its content type, its form on the wire.
--
-- Used by `tensors.lua`. Throws errors of errors.lua.
local errors = require("errors")
local value_of = require("replies").value_of
local web = require("web")

local M = {}

-- What a JSON body may call itself: `curl -d` says it is a form when nobody tells it otherwise.
local JSON_TYPES = { [""] = true, ["application/json"] = true, ["application/x-www-form-urlencoded"] = true, ["text/plain"] = true }

local WEB_TYPES = "application/grpc, application/grpc-web, application/proto or application/json"

local function check_method(headers)
  local method = value_of(headers, ":method")
  if method ~= "POST" then
    errors.fail({
      code = errors.UNIMPLEMENTED, http = 405, reason = "METHOD_NOT_ALLOWED", headers = { allow = "POST" },
      message = "a prediction is a POST, not a " .. method, expected = "POST", received = method,
    })
  end
end

local function wrong_content_type(expected, received)
  errors.fail({
    code = errors.INVALID_ARGUMENT, http = 415, reason = "WRONG_CONTENT_TYPE", field = "content-type",
    message = "content-type: expected " .. expected .. ", received " .. received, expected = expected, received = received,
  })
end

-- Refuses a call to a decoupled model; `why`: what its protocol cannot do.
function M.stream_only(plan, why)
  errors.fail({
    code = errors.UNIMPLEMENTED, reason = "STREAM_ONLY",
    message = "model " .. plan.model .. " answers one request with any number of answers, which " .. why,
    try = "gRPC: PredictStream, or inference.GRPCInferenceService/ModelStreamInfer with metadata x-penstock-model",
  })
end

-- Refuses what is no call of typed JSON.
function M.check_json(headers)
  check_method(headers)
  local content_type = value_of(headers, "content-type")
  if content_type and not JSON_TYPES[content_type:lower():match("^[^;%s]*")] then
    wrong_content_type("application/json", content_type)
  end
end

-- The form of a call that is not plain gRPC: gRPC-Web or Connect. Refuses anything else.
function M.web_form(headers, plan, content_type)
  check_method(headers)
  local form = web.form(value_of(headers, ":path"), content_type)
  if not form then
    wrong_content_type(WEB_TYPES, content_type or "nothing")
  elseif plan.kind ~= "grpc" then
    M.stream_only(plan, "is served over gRPC only")
  end
  local encoding = value_of(headers, "content-encoding")
  if encoding and encoding ~= "identity" then
    errors.compressed("content-encoding", encoding)
  end
  return form
end

-- Makes the rest of the way of such a call plain gRPC, and leaves word for the answer.
function M.web_to_grpc(handle, form)
  local headers = handle:headers()
  local timeout = web.timeout(value_of(headers, "connect-timeout-ms"))
  if timeout then
    headers:replace("grpc-timeout", timeout)
  end
  headers:replace("content-type", "application/grpc")
  headers:replace("te", "trailers")
  headers:remove("accept-encoding")
  handle:streamInfo():dynamicMetadata():set(web.NAMESPACE, "form", form)
end

return M
