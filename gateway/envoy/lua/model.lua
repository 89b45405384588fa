-- Envoy filter `penstock.model`: names the model of a request, and gives Envoy's own replies the one error shape.
--
-- The first of the two filters. It sets `x-penstock-model`, by which Envoy picks the model's routes, so it must have
-- `clear_route_cache: true`. Whatever fails here answers INTERNAL; a request is never passed on half-edited.
local cors = require("cors")
local errors = require("errors")
local names = require("names")
local oip_grpc = require("oip_grpc")
local replies = require("replies")
local settings = require("settings")

local value_of = replies.value_of
local sticky_header = settings.sticky_header

local function name_request(handle)
  local headers = handle:headers()
  local route = names.of(value_of(headers, ":path") or "")
  local key, name, version = route.key, route.name, route.version
  if route.peek then
    local body = handle:body()
    local size = body and body:length() or 0
    name, version = oip_grpc.peek(function(from, n)
      return body:getBytes(from, n)
    end, size)
    headers = handle:headers() -- those from before body() are dead
    if size > replies.LARGE_BODY then
      headers:replace(replies.SIZE_HEADER, tostring(size))
    end
    if version == "" then
      version = nil
    end
    if not name or name == "" then
      errors.invalid("MISSING_FIELD", "model_name", "the request names no model", "a model name", "nothing")
    end
    key = names.key(name)
  elseif route.stream then
    -- A stream's messages come later; only its metadata can name the model.
    name = value_of(headers, "x-penstock-model")
    if not name then
      errors.invalid("MISSING_FIELD", "x-penstock-model", "a stream names its model in metadata; expected x-penstock-model", "metadata x-penstock-model", "nothing")
    end
    key = names.key(name)
  end

  headers:remove("x-penstock-hash")
  headers:remove("x-penstock-model")
  headers:add("x-penstock-model", key)
  if key == names.SYSTEM then
    return
  end
  if key == names.UNKNOWN or key ~= name then
    headers:replace("x-penstock-name", replies.header_text(name))
  end
  if version then
    headers:replace("x-penstock-version", replies.header_text(version))
  end
  if route.path then
    headers:replace(":path", route.path)
  end
  local user = value_of(headers, sticky_header)
  if user and user ~= "" then
    headers:add("x-penstock-hash", key .. "/" .. user)
  end
end

function envoy_on_request(handle)
  local ok, thrown = pcall(name_request, handle)
  if not ok then
    replies.refuse(handle, errors.caught(thrown))
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local details = value_of(headers, "x-penstock-local")
  if details then
    local origin, method = replies.mark(headers, "-origin"), replies.mark(headers, "-preflight")
    local ok, thrown = pcall(replies.reshape, handle, details)
    if not ok then
      handle:logErr("penstock.model: " .. tostring(thrown))
    end
    cors.open(handle:headers(), origin, method)
  end
end
