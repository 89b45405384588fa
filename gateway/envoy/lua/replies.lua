-- Answers that no server made: refusals by the filters, and Envoy's own local replies in the one error shape.
--
-- Envoy marks its local replies (README.md, `local_reply_config`), so nothing is guessed from texts.
local errors = require("errors")
local nearest = require("nearest")
local names = require("names")
local text = require("text")
local web = require("web")

local M = {}

-- A header or trailer, or nil. Envoy's get returns no value at all for an absent one, which is an error as an argument.
function M.value_of(headers, name)
  local value = headers:get(name)
  return value
end
local value_of = M.value_of

local MARKS = {
  "x-penstock-local", "x-penstock-local-path", "x-penstock-local-model", "x-penstock-local-name", "x-penstock-local-version",
  "x-penstock-local-deadline", "x-penstock-local-limit", "x-penstock-local-type", "x-penstock-local-form",
  "x-penstock-local-origin", "x-penstock-local-preflight",
}

-- Tells the second filter the size of a body that the first one gathered; only of a large one, that few requests carry it.
M.SIZE_HEADER, M.LARGE_BODY = "x-penstock-bytes", 1024 * 1024

-- Seconds a caller is told to wait when a server cannot be reached: supervision restarts one in about that time.
M.RETRY_S = 1

-- A value that a caller made up, as a header: percent-encoded and bounded.
function M.header_text(value)
  return text.percent(value:sub(1, 128))
end

-- Answers a request with `info` in its caller's protocol. The body is read first: an unread one would cost an HTTP/1.1
-- caller the connection.
function M.refuse(handle, info)
  if info.fault then
    handle:logErr("penstock: " .. info.fault)
  end
  local headers = handle:headers()
  local method, path = value_of(headers, ":method"), value_of(headers, ":path") or ""
  local content_type = value_of(headers, "content-type")
  if web.is_grpc(content_type) then
    handle:respond(errors.grpc_reply(info))
  end
  local form = web.form(path, content_type)
  pcall(handle.body, handle)
  if form then
    local status, said, body = web.refusal(form, info)
    handle:respond({ [":status"] = tostring(status), ["content-type"] = said }, body)
  end
  handle:respond(errors.http_reply(info, method, path:sub(1, 4) == "/v2/"))
end

local UNAVAILABLE = "the inference server could not be reached; try again"
local NO_CONTROL_PLANE = "the control plane could not be reached: predictions go on, documents and feedback wait for it; try again"

-- Whether the control plane answers this path: everything of no model but the servers' own health and metadata.
local function of_control_plane(request)
  local path = request.path
  if request.model ~= names.SYSTEM then
    return false
  end
  return path:find("^/v2/repository") or path:find("/RepositoryIndex$") or path:find("/ModelReady$")
    or not path:find("^/v2") and not path:find("^/inference%.")
end

local function unknown_model(request)
  local what = request.major and "no model is called " .. request.name .. " with API v" .. request.major or "no model is called " .. request.name
  local near = request.nearest ~= "" and request.nearest or nil
  return {
    code = errors.NOT_FOUND, reason = "UNKNOWN_MODEL", received = request.name, nearest = near,
    message = what .. "; " .. (near and "did you mean " .. near .. "? " or "") .. "GET /v1/models lists those there are",
  }
end

local function too_large(request)
  return {
    code = errors.RESOURCE_EXHAUSTED, http = 413, reason = "TOO_LARGE", limit = request.limit,
    message = "the body is larger than this model's limit" .. (request.limit and " of " .. request.limit or ""),
    expected = request.limit and "at most " .. request.limit:match("^%d+ bytes"), try = "send fewer instances per request",
  }
end

local function too_late(request)
  local own = request.deadline
  local limit = own and "grpc-timeout: " .. own .. " (the caller's)" or request.limit
  return {
    code = errors.DEADLINE_EXCEEDED, reason = "DEADLINE", limit = limit,
    message = "the prediction did not finish within " .. (own and "the caller's own deadline, grpc-timeout: " .. own or "its time limit" .. (limit and " of " .. limit or "")),
  }
end

-- What Envoy's reply means, from its response code details, its HTTP status (or the one it stands for), the request, and
-- the text of the reply (for a direct response, what the route says).
local function meaning(details, status, request, said)
  local ours = details == "direct_response"
  if details == "route_not_found" and request.model ~= names.SYSTEM and request.model ~= "" then
    return unknown_model(request)
  elseif ours and status == 404 and request.version ~= "" then
    return {
      code = errors.NOT_FOUND, reason = "UNKNOWN_VERSION", received = request.version, expected = said ~= "" and "one of " .. said or nil,
      message = "model " .. request.name .. " has no loaded version " .. request.version .. (said ~= "" and "; it has " .. said or ""),
    }
  elseif ours and status == 503 then
    return { code = errors.UNAVAILABLE, reason = "NOT_READY", message = said, hop = "server", retry_s = M.RETRY_S }
  elseif ours and status == 501 then
    return {
      code = errors.UNIMPLEMENTED, reason = "NO_TYPED_API", message = said,
      try = "Open Inference Protocol: POST /v2/models/" .. request.name .. "/infer, or gRPC inference.GRPCInferenceService; /docs/" .. request.name .. " says more",
    }
  elseif status == 404 then
    return { code = errors.NOT_FOUND, reason = "NOT_FOUND", received = request.path, message = "nothing is served at " .. request.path }
  elseif status == 413 then
    return too_large(request)
  elseif details:find("timeout", 1, true) or status == 504 then
    return too_late(request)
  elseif details:find("overflow", 1, true) or details:find("overload", 1, true) then
    return { code = errors.UNAVAILABLE, reason = "OVERLOADED", message = "too many requests are in progress; try again later", retry_s = M.RETRY_S }
  elseif (status == 503 or status == 502 or details:find("upstream_reset", 1, true)) and of_control_plane(request) then
    return { code = errors.UNAVAILABLE, reason = "UNAVAILABLE", message = NO_CONTROL_PLANE, hop = "control plane", retry_s = M.RETRY_S }
  elseif status == 503 or status == 502 or details:find("upstream_reset", 1, true) then
    return { code = errors.UNAVAILABLE, reason = "UNAVAILABLE", message = UNAVAILABLE, hop = "server", retry_s = M.RETRY_S }
  end
  return nil
end

-- gRPC status of Envoy's trailers-only replies -> the HTTP status it was made from.
local GRPC_TO_HTTP = { [12] = 404, [14] = 503, [4] = 504, [16] = 401, [7] = 403 }

local function status_of_grpc(details, grpc_status)
  if details:find("payload_too_large", 1, true) then
    return 413
  elseif details == "direct_response" and grpc_status == errors.UNKNOWN then
    return 501 -- the one status of our routes that gRPC has no other number for
  end
  return GRPC_TO_HTTP[grpc_status] or 500
end

-- One mark of a local reply; nil when it is absent or without a value, "-".
function M.mark(headers, name)
  local value = value_of(headers, "x-penstock-local" .. name)
  return value ~= "-" and value or nil
end

-- What the marks of a local reply say of its request.
local function marked(headers)
  local function mark(name)
    return M.mark(headers, name)
  end
  local request = {
    path = mark("-path") or "",
    model = mark("-model") or "",
    version = text.unpercent(mark("-version") or ""),
    deadline = mark("-deadline"),
    limit = mark("-limit"),
    nearest = "",
  }
  -- The content type speaks for requests that got no further than the routes; later it is the server's.
  request.form = mark("-form") or web.form(request.path, mark("-type"))
  local key, major = request.model:match("^(.+)%.v(%d+)$")
  local plain = text.unpercent(mark("-name") or "")
  request.major = major
  request.name = (request.model == names.UNKNOWN or names.key(plain) == (key or request.model)) and plain or key or request.model
  return request
end

-- Rewrites the reply in `handle` (a response) that Envoy made itself.
function M.reshape(handle, details)
  local headers = handle:headers()
  local request = marked(headers)
  for _, mark in ipairs(MARKS) do
    headers:remove(mark)
  end
  if details == "lua_response" then
    return -- one of the scripts answered, in the right shape already
  end
  if details == "route_not_found" and request.model ~= names.SYSTEM then
    request.nearest = nearest.of(handle, request.name)
    headers = handle:headers() -- those from before the call are dead
  end

  local grpc_status = tonumber(value_of(headers, "grpc-status"))
  local status = tonumber(value_of(headers, ":status")) or 500
  if grpc_status then
    local said = text.unpercent(value_of(headers, "grpc-message") or "")
    local info = meaning(details, status_of_grpc(details, grpc_status), request, said)
      or { code = grpc_status, reason = "REFUSED", message = said ~= "" and said or "the request was refused" }
    for key, value in pairs(errors.grpc_headers(info)) do
      headers:replace(key, value)
    end
    return
  end
  if status < 400 then
    return -- a redirect, or a direct response that is an answer
  end
  local body = handle:body(true) or handle:body(true)
  local size = body and body:length() or 0
  local said = size > 0 and body:getBytes(0, math.min(size, 1024)) or ""
  local info = meaning(details, status, request, said)
    or { code = errors.code_of_http(status), http = status, reason = "REFUSED", message = said ~= "" and said or "the request was refused" }
  local http_status, content_type, bytes = info.http or errors.http_status(info.code), "application/json", nil
  if request.form then
    http_status, content_type, bytes = web.refusal(request.form, info)
  else
    bytes = errors.json(info, request.path:sub(1, 4) == "/v2/")
  end
  body:setBytes(bytes)
  headers = handle:headers()
  headers:replace(":status", tostring(http_status))
  headers:replace("content-type", content_type)
  if info.retry_s then
    headers:replace("retry-after", tostring(info.retry_s))
  end
end

return M
