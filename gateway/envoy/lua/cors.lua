-- Lets pages of allowed sites read what Envoy answers by itself; its own CORS filter passes such replies by.
--
-- Used by `model.lua`. The settings are those of the filter (cors.py): the origins, and headers with constant values.
local replies = require("replies")
local cors = require("settings").cors

local M = {}

local any, allowed = false, {}
for _, origin in ipairs(cors.origins) do
  any = any or origin == "*"
  allowed[origin] = true
end

-- `headers`: of a reply. `origin` and `method`: what the request's headers origin and access-control-request-method
-- said, nil without; a method makes it a preflight, which must succeed before a page may ask and read the refusal.
function M.open(headers, origin, method)
  if not origin or not (any or allowed[origin]) or replies.value_of(headers, "access-control-allow-origin") then
    return
  end
  headers:replace("access-control-allow-origin", origin)
  headers:replace("vary", "origin")
  for name, value in pairs(cors.headers) do
    headers:replace(name, value)
  end
  if method then
    headers:replace(":status", "200")
    for name, value in pairs(cors.preflight) do
      headers:replace(name, value)
    end
  end
end

return M
