-- Which model a path names. Pure; answers are kept per path, because callers use few.
local text = require("text")

local M = {}

M.SYSTEM, M.UNKNOWN = ".system", ".unknown"
M.OIP_SERVICE = "/inference.GRPCInferenceService/"

local LONGEST_NAME = 63
-- Paths remembered, and the longest one worth it; query strings could make endless ones.
local MOST_PATHS, LONGEST_PATH = 4096, 200

local PEEKED = { ModelInfer = true, ModelReady = true, ModelMetadata = true, ModelConfig = true, ModelStatistics = true }

-- The scope key of a model's public name, `.unknown` for what cannot be one.
function M.key(name)
  if #name > LONGEST_NAME or not name:find("^[a-z][a-z0-9_-]*$") then
    return M.UNKNOWN
  end
  return (name:gsub("-", "_"))
end

local function model(name, version, path)
  return { key = M.key(name), name = name, version = version, path = path }
end

local SYSTEM_ROUTE = { key = M.SYSTEM }

-- Paths of typed JSON and of Open Inference HTTP; nil when it is neither.
local function http_route(path)
  local name, rest = path:match("^/v1/models/([^/:?]+)(.*)$")
  if name then
    local version = rest:match("^/versions/([^/:?]+):")
    if version or rest:byte(1) == 58 then
      return model(name, version)
    end
    return nil
  end
  name, rest = path:match("^/v2/models/([^/?]+)(.*)$")
  if name then
    return model(name, rest:match("^/versions/([^/?]+)"))
  end
  return nil
end

local function route(path)
  local name = path:match("^/penstock%.models%.([%w_]+)%.v%d+%.")
  if name then
    return model(name)
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
  if found and plain ~= before and plain:find("^[%w/:._-]*$") then
    found.path = plain .. query -- the routes match plain text
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
