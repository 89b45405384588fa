-- The one error shape: google.rpc.Status with one google.rpc.ErrorInfo, as JSON or as gRPC metadata.
--
-- Modules throw what `fail` throws; the two filters catch it and answer with `http_reply` or `grpc_reply`. Anything
-- else that is thrown is a fault of the scripts themselves and becomes INTERNAL.
local protobuf = require("protobuf")
local text = require("text")

local M = {}

local NAMES = {
  [0] = "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
  "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}
-- google.rpc.Code -> HTTP, as the comments of google/rpc/code.proto say.
local HTTP = {
  [0] = 200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
}
-- HTTP -> google.rpc.Code, for answers of Envoy and of servers that speak HTTP.
local CODES = {
  [400] = 3, [401] = 16, [403] = 7, [404] = 5, [405] = 12, [408] = 4, [409] = 6, [413] = 8, [415] = 3, [429] = 8,
  [431] = 8, [499] = 1, [501] = 12, [502] = 14, [503] = 14, [504] = 4,
}

M.OK, M.UNKNOWN, M.INVALID_ARGUMENT, M.DEADLINE_EXCEEDED, M.NOT_FOUND = 0, 2, 3, 4, 5
M.RESOURCE_EXHAUSTED, M.UNIMPLEMENTED, M.INTERNAL, M.UNAVAILABLE = 8, 12, 13, 14

-- Longest message sent; header blocks of clients are limited to 8 or 16 KiB, and it goes out twice in them.
local LONGEST = 1024

local ERROR = {}

-- Throws an error. `info`: code, reason, message; optional field, expected, received, limit, try, nearest, http, hop,
-- headers, retry_s (seconds after which another try may succeed).
function M.fail(info)
  info[ERROR] = true
  error(info, 0)
end

-- INVALID_ARGUMENT of one field of the request.
function M.invalid(reason, field, message, expected, received)
  M.fail({
    code = M.INVALID_ARGUMENT,
    reason = reason,
    field = field,
    message = field ~= "" and field .. ": " .. message or message,
    expected = expected,
    received = received,
  })
end

-- UNIMPLEMENTED: a compressed message. `field`: the header that says so; `http`: status over plain HTTP, if not the code's.
function M.compressed(field, received, http)
  M.fail({
    code = M.UNIMPLEMENTED, http = http, reason = "COMPRESSED", field = field, expected = "identity", received = received,
    message = field .. ": compressed messages are not supported; send the message without compression",
  })
end

-- INTERNAL: what the inference server answered cannot be passed on.
function M.bad_answer(message, expected, received)
  M.fail({
    code = M.INTERNAL,
    reason = "BAD_ANSWER",
    message = "the inference server's answer is malformed: " .. message,
    expected = expected,
    received = received,
    hop = "server",
  })
end

-- What a pcall caught, as an error of the one shape. The text of a fault in the scripts is for the log only.
function M.caught(thrown)
  if type(thrown) == "table" and thrown[ERROR] then
    return thrown
  end
  return {
    code = M.INTERNAL,
    reason = "GATEWAY_FAULT",
    message = "the gateway could not process this request; its log says why",
    fault = tostring(thrown),
  }
end

function M.name(code)
  return NAMES[code] or "UNKNOWN"
end

function M.http_status(code)
  return HTTP[code] or 500
end

function M.code_of_http(status)
  return CODES[status] or (status < 400 and M.OK or status < 500 and M.INVALID_ARGUMENT or M.INTERNAL)
end

local function shorten(message)
  message = text.to_utf8(message)
  if #message > LONGEST then
    message = text.to_utf8(message:sub(1, LONGEST)):gsub("\239\191\189$", "") .. "..."
  end
  return message
end

M.shorten = shorten

local METADATA = { "field", "expected", "received", "limit", "try", "nearest" }

local function metadata_of(info)
  local pairs_ = {}
  for _, key in ipairs(METADATA) do
    if info[key] ~= nil and info[key] ~= "" then
      pairs_[#pairs_ + 1] = { key, shorten(tostring(info[key])) }
    end
  end
  pairs_[#pairs_ + 1] = { "hop", info.hop or "gateway" }
  return pairs_
end

-- The error as a JSON body. `plain_error` adds the key that Open Inference HTTP clients look for.
function M.json(info, plain_error)
  local metadata = {}
  for i, pair in ipairs(metadata_of(info)) do
    metadata[i] = text.json_string(pair[1]) .. ":" .. text.json_string(pair[2])
  end
  local message = text.json_string(shorten(info.message))
  return table.concat({
    '{"code":', info.code, ',"status":"', M.name(info.code), '","message":', message,
    ',"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":', text.json_string(info.reason),
    ',"domain":"penstock","metadata":{', table.concat(metadata, ","), "}}",
    info.retry_s and ',{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"' .. info.retry_s .. 's"}' or "", "]",
    plain_error and ',"error":' .. message or "", "}",
  })
end

-- The details of an error as protobuf messages: an ErrorInfo and, when another try may succeed, a RetryInfo.
function M.details(info)
  local field = protobuf.field
  local parts = { field(1, info.reason), field(2, "penstock") }
  for _, pair in ipairs(metadata_of(info)) do
    parts[#parts + 1] = field(3, field(1, pair[1]) .. field(2, pair[2]))
  end
  local details = { { type = "google.rpc.ErrorInfo", bytes = table.concat(parts) } }
  if info.retry_s then
    details[2] = { type = "google.rpc.RetryInfo", bytes = field(1, "\8" .. protobuf.varint_bytes(info.retry_s)) }
  end
  return details
end

-- The error as a serialized google.rpc.Status.
function M.status_bytes(info)
  local field = protobuf.field
  local parts = { info.code > 0 and "\8" .. protobuf.varint_bytes(info.code) or "", field(2, shorten(info.message)) }
  for _, detail in ipairs(M.details(info)) do
    parts[#parts + 1] = field(3, field(1, "type.googleapis.com/" .. detail.type) .. field(2, detail.bytes))
  end
  return table.concat(parts)
end

-- Headers of a trailers-only gRPC answer.
function M.grpc_headers(info)
  return {
    ["grpc-status"] = tostring(info.code),
    ["grpc-message"] = text.percent(shorten(info.message)),
    ["grpc-status-details-bin"] = text.base64(M.status_bytes(info)),
  }
end

-- Arguments of `handle:respond` for a gRPC caller.
function M.grpc_reply(info)
  local headers = M.grpc_headers(info)
  headers[":status"] = "200"
  headers["content-type"] = "application/grpc"
  return headers, ""
end

-- Arguments of `handle:respond` for an HTTP caller. `method` HEAD gets no body.
function M.http_reply(info, method, plain_error)
  local headers = {
    [":status"] = tostring(info.http or M.http_status(info.code)),
    ["content-type"] = "application/json",
  }
  for name, value in pairs(info.headers or {}) do
    headers[name] = value
  end
  return headers, method == "HEAD" and "" or M.json(info, plain_error)
end

return M
