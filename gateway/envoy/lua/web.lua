-- gRPC-Web and Connect (unary) on the typed methods' own paths, told apart by content type.
--
-- Used by `tensors.lua` for what is served and by `replies.lua` for what is refused. Pure: bytes in, bytes out. A call of
-- plain gRPC never comes here. Errors keep their details: gRPC-Web in its trailer frame, Connect in its JSON error.
local errors = require("errors")
local ffi = require("ffi")
local protobuf = require("protobuf")
local text = require("text")

local M = {}

-- Namespace of the dynamic metadata that tells the answer, and Envoy's own replies, the form of the request.
M.NAMESPACE = "penstock.web"

local TYPED_PATH = "/penstock.models."

local FORMS = {
  ["application/grpc-web"] = "web", ["application/grpc-web+proto"] = "web",
  ["application/grpc-web-text"] = "web_text", ["application/grpc-web-text+proto"] = "web_text",
  ["application/proto"] = "connect_proto", ["application/json"] = "connect_json",
}
M.CONTENT_TYPES = {
  web = "application/grpc-web+proto", web_text = "application/grpc-web-text+proto",
  connect_proto = "application/proto", connect_json = "application/json",
}

-- Whether a content type is that of plain gRPC.
function M.is_grpc(content_type)
  if not content_type or content_type:sub(1, 16) ~= "application/grpc" then
    return false
  end
  local c = content_type:byte(17)
  return c == nil or c == 43 or c == 59 or c == 32
end

-- The form of a call to `path` with this content type; nil when it is neither gRPC-Web nor Connect.
function M.form(path, content_type)
  if path:sub(1, #TYPED_PATH) ~= TYPED_PATH or not content_type then
    return nil
  end
  return FORMS[content_type:lower():match("^[^;%s]*")]
end

-- base64 text, padded anywhere between its parts (gRPC-Web's text form joins encoded chunks), as bytes.
local function unbase64(encoded)
  local parts = {}
  for part in encoded:gmatch("[^=]+") do
    local bytes = ffi.new("uint8_t[?]", #part)
    local stop = text.unbase64_to(bytes, 0, ffi.cast("const uint8_t *", part), 0, #part)
    if not stop then
      errors.invalid("MALFORMED_PROTOBUF", "", "the body is not base64, as content-type grpc-web-text says", "base64 text", "something else")
    end
    parts[#parts + 1] = ffi.string(bytes, stop)
  end
  return table.concat(parts)
end

-- The request's body as one gRPC frame. Not for `connect_json`, whose body is no protobuf.
function M.framed(form, body)
  if form == "connect_proto" then
    return protobuf.frame(#body) .. body
  end
  return form == "web_text" and unbase64(body) or body
end

-- Value of grpc-timeout for Connect's own header; nil when there is none, or more than gRPC can say.
function M.timeout(connect_timeout_ms)
  if not connect_timeout_ms then
    return nil
  end
  if not connect_timeout_ms:find("^%d+$") or #connect_timeout_ms > 10 then
    errors.invalid("WRONG_TYPE", "connect-timeout-ms", "expected at most 10 digits, received " .. connect_timeout_ms, "milliseconds, at most 10 digits", connect_timeout_ms)
  end
  return #connect_timeout_ms <= 8 and connect_timeout_ms .. "m" or nil
end

local function trailer_frame(headers)
  local lines = {}
  for _, name in ipairs({ "grpc-status", "grpc-message", "grpc-status-details-bin" }) do
    if headers[name] then
      lines[#lines + 1] = name .. ":" .. headers[name] .. "\r\n"
    end
  end
  local trailers = table.concat(lines)
  return "\128" .. protobuf.frame(#trailers):sub(2) .. trailers
end

-- A good answer: `encoded` is a gRPC frame, or JSON for `connect_json`.
function M.answer(form, encoded)
  if form == "connect_proto" then
    return encoded:sub(6)
  elseif form == "connect_json" then
    return encoded
  end
  local body = encoded .. trailer_frame({ ["grpc-status"] = "0" })
  return form == "web_text" and text.base64(body, true) or body
end

local function connect_error(info)
  local details = {}
  for i, detail in ipairs(errors.details(info)) do
    details[i] = '{"type":' .. text.json_string(detail.type) .. ',"value":"' .. text.base64(detail.bytes) .. '"}'
  end
  -- Connect spells it as Americans do, gRPC as the British.
  local name = info.code == 1 and "canceled" or errors.name(info.code):lower()
  return '{"code":"' .. name .. '","message":' .. text.json_string(errors.shorten(info.message)) .. ',"details":[' .. table.concat(details, ",") .. "]}"
end

-- An error: HTTP status, content type, body.
function M.refusal(form, info)
  if form == "connect_proto" or form == "connect_json" then
    return info.http or errors.http_status(info.code), "application/json", connect_error(info)
  end
  local body = trailer_frame(errors.grpc_headers(info))
  return 200, M.CONTENT_TYPES[form], form == "web_text" and text.base64(body, true) or body
end

return M
