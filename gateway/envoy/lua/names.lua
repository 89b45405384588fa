-- Which model a path names. Pure; answers are kept per path, because callers use few.
local text = require("text")

local M = {}

M.SYSTEM, M.UNKNOWN = ".system", ".unknown"
M.OIP_SERVICE = "/inference.GRPCInferenceService/"

local LONGEST_NAME = 63
-- Paths remembered, and the longest one worth it; query strings could make endless ones.
local MOST_PATHS, LONGEST_PATH = 4096, 200

local PEEKED = { ModelInfer = true, ModelReady = true, ModelMetadata = true, ModelConfig = true, ModelStatistics = true }

-- The key of a model's public name, `.unknown` for what cannot be one: its scope key in the first major of its API.
function M.key(name)
  if #name > LONGEST_NAME or not name:find("^[a-z][a-z0-9_-]*$") then
    return M.UNKNOWN
  end
  return (name:gsub("-", "_"))
end

-- `major`: of the API; each has routes of its own (`key`, and `key.v2` and so on), all versions of the model in one.
local function model(name, version, major)
  local key = M.key(name)
  if major and major ~= "1" and key ~= M.UNKNOWN then
    key = key .. ".v" .. major
  end
  return { key = key, name = name, version = version }
end

local SYSTEM_ROUTE = { key = M.SYSTEM }

-- Paths of typed JSON, of a later major's documents and of Open Inference HTTP; nil when it is none of them. Open Inference
-- has /v2/models too: its paths go on with "/" after the name or a version, a typed call's with ":".
local function http_route(path)
  local major, name, rest = path:match("^/v([1-9]%d?%d?)/models/([^/:]+)(.*)$")
  if not major then
    return nil
  end
  local version, verb = rest:match("^/versions/([^/:]+)(:.*)$")
  if version then
    local pinned = model(name, version, major)
    pinned.path = "/v" .. major .. "/models/" .. name .. verb -- the version goes on in the header
    return pinned
  elseif rest:byte(1) == 58 then
    return model(name, nil, major)
  elseif major == "1" then
    return nil -- documents of the first major are the control plane's
  end
  local proto = rest == "" and name:match("^(.+)%.proto$")
  if proto then
    return model(proto, nil, major)
  elseif major ~= "2" or rest == "/openapi.json" or rest == "/docs" or rest:sub(1, 9) == "/clients/" then
    return model(name, nil, major)
  end
  return model(name, rest:match("^/versions/([^/]+)"))
end

local function route(path)
  local name, major = path:match("^/penstock%.models%.([%w_]+)%.v([1-9]%d*)%.")
  if name then
    -- A name that languages reserve has "_" behind it in the package ("class_"), and no name ends with one.
    return model((name:gsub("_$", "")), nil, major)
  end
  if path:sub(1, #M.OIP_SERVICE) == M.OIP_SERVICE then
    local method = path:sub(#M.OIP_SERVICE + 1)
    if method == "ModelStreamInfer" then
      return { stream = true }
    end
    return PEEKED[method] and { peek = true } or SYSTEM_ROUTE
  end
  local before, query = path:match("^([^?]*)(.*)$")
  local plain = before:find("%", 1, true) and text.unpercent(before) or before
  local found = http_route(plain)
  if found and (found.path or plain ~= before and plain:find("^[%w/:._-]*$")) then
    found.path = (found.path or plain) .. query -- the routes match plain text
  end
  return found or SYSTEM_ROUTE
end

local known, known_count = {}, 0

-- What the path says: `key` (scope), `name` (as the caller wrote it), `version` (pin, or nil), `path` (to go on with, when
-- it was percent-encoded); or `peek` (the name is in the message) or `stream` (the name is in the metadata).
function M.of(path)
  local found = known[path]
  if found then
    return found
  end
  found = route(path)
  if #path <= LONGEST_PATH then
    if known_count >= MOST_PATHS then
      known, known_count = {}, 0
    end
    known[path] = found
    known_count = known_count + 1
  end
  return found
end

return M
