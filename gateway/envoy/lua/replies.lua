-- Answers that no server made: refusals by the filters, and Envoy's own local replies in the one error shape.
--
-- Envoy marks its local replies (README.md, `local_reply_config`), so nothing is guessed from texts.
local errors = require("errors")
local names = require("names")
local text = require("text")

local M = {}

-- A header or trailer, or nil. Envoy's get returns no value at all for an absent one, which is an error as an argument.
function M.value_of(headers, name)
  local value = headers:get(name)
  return value
end
local value_of = M.value_of

local MARKS = {
  "x-penstock-local", "x-penstock-local-path", "x-penstock-local-model", "x-penstock-local-name", "x-penstock-local-version",
}

-- A value that a caller made up, as a header: percent-encoded and bounded.
function M.header_text(value)
  return text.percent(value:sub(1, 128))
end

local function is_grpc(content_type)
  return content_type ~= nil and content_type:sub(1, 16) == "application/grpc"
end

-- Answers a request with `info` in its caller's protocol. The body is read first: an unread one would cost an HTTP/1.1
-- caller the connection.
function M.refuse(handle, info)
  if info.fault then
    handle:logErr("penstock: " .. info.fault)
  end
  local headers = handle:headers()
  local method, path = value_of(headers, ":method"), value_of(headers, ":path") or ""
  if is_grpc(value_of(headers, "content-type")) then
    handle:respond(errors.grpc_reply(info))
  end
  pcall(handle.body, handle)
  handle:respond(errors.http_reply(info, method, path:sub(1, 4) == "/v2/"))
end

local UNAVAILABLE = "the inference server could not be reached; try again"
local NO_CONTROL_PLANE = "the control plane could not be reached: predictions go on, documents and feedback wait for it; try again"

-- Whether the control plane answers this path: everything of no model but the servers' own health and metadata.
local function of_control_plane(request)
  return request.model == names.SYSTEM and not request.path:find("^/v2") and not request.path:find("^/inference%.")
end

-- What Envoy's reply means, from its response code details, its HTTP status (or the one it stands for) and the request.
local function meaning(details, status, request)
  if details == "route_not_found" and request.model ~= names.SYSTEM and request.model ~= "" then
    return {
      code = errors.NOT_FOUND, reason = "UNKNOWN_MODEL", received = request.name,
      message = "no model is called " .. request.name .. "; GET /v1/models lists those there are",
    }
  elseif details == "direct_response" and status == 404 and request.version ~= "" then
    return {
      code = errors.NOT_FOUND, reason = "UNKNOWN_VERSION", received = request.version,
      message = "model " .. request.name .. " has no loaded version " .. request.version,
    }
  elseif status == 404 then
    return { code = errors.NOT_FOUND, reason = "NOT_FOUND", received = request.path, message = "nothing is served at " .. request.path }
  elseif status == 413 then
    return { code = errors.RESOURCE_EXHAUSTED, http = 413, reason = "TOO_LARGE", message = "the body is larger than this model's limit", try = "send fewer instances per request" }
  elseif details:find("timeout", 1, true) or status == 504 then
    return { code = errors.DEADLINE_EXCEEDED, reason = "DEADLINE", message = "the prediction did not finish within its time limit" }
  elseif details:find("overflow", 1, true) or details:find("overload", 1, true) then
    return { code = errors.UNAVAILABLE, reason = "OVERLOADED", message = "too many requests are in progress; try again later" }
  elseif (status == 503 or status == 502 or details:find("upstream_reset", 1, true)) and of_control_plane(request) then
    return { code = errors.UNAVAILABLE, reason = "UNAVAILABLE", message = NO_CONTROL_PLANE, hop = "control plane" }
  elseif status == 503 or status == 502 or details:find("upstream_reset", 1, true) then
    return { code = errors.UNAVAILABLE, reason = "UNAVAILABLE", message = UNAVAILABLE, hop = "server" }
  end
  return nil
end

-- gRPC status of Envoy's trailers-only replies -> the HTTP status it was made from.
local GRPC_TO_HTTP = { [12] = 404, [14] = 503, [4] = 504, [16] = 401, [7] = 403 }

-- Rewrites the reply in `handle` (a response) that Envoy made itself.
function M.reshape(handle, details)
  local headers = handle:headers()
  local request = {
    path = value_of(headers, "x-penstock-local-path") or "",
    model = value_of(headers, "x-penstock-local-model") or "",
    version = value_of(headers, "x-penstock-local-version") or "",
  }
  if request.model == "-" then
    request.model = ""
  end
  if request.version == "-" then
    request.version = ""
  end
  local name = value_of(headers, "x-penstock-local-name") or "-"
  local plain = text.unpercent(name)
  request.name = (request.model == names.UNKNOWN or names.key(plain) == request.model) and plain or request.model
  request.version = text.unpercent(request.version)
  for _, mark in ipairs(MARKS) do
    headers:remove(mark)
  end
  if details == "lua_response" then
    return -- one of the scripts answered, in the right shape already
  end

  local grpc_status = tonumber(value_of(headers, "grpc-status"))
  local status = tonumber(value_of(headers, ":status")) or 500
  if grpc_status then
    local info = meaning(details, details:find("payload_too_large", 1, true) and 413 or GRPC_TO_HTTP[grpc_status] or 500, request)
      or { code = grpc_status, reason = "REFUSED", message = text.unpercent(value_of(headers, "grpc-message") or "the request was refused") }
    for key, value in pairs(errors.grpc_headers(info)) do
      headers:replace(key, value)
    end
    return
  end
  if status < 400 then
    return -- a redirect, or a direct response that is an answer
  end
  local info = meaning(details, status, request)
  if not info then
    local body = handle:body(true) or handle:body(true)
    local said = body and body:length() > 0 and body:getBytes(0, math.min(body:length(), 1024)) or "the request was refused"
    info = { code = errors.code_of_http(status), http = status, reason = "REFUSED", message = said }
  end
  local body = handle:body(true) or handle:body(true)
  local plain_error = request.path:sub(1, 4) == "/v2/"
  body:setBytes(errors.json(info, plain_error))
  headers = handle:headers()
  headers:replace(":status", tostring(info.http or errors.http_status(info.code)))
  headers:replace("content-type", "application/json")
end

return M
