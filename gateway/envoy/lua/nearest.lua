-- Names like one that no model has, asked of the control plane: the data plane knows each model by its own routes only.
--
-- Used for the wording of one error. An answer is kept for a while and few are asked for, so that callers with wrong names
-- cannot load the control plane; without an answer the error says what it can.
local M = {}

local CLUSTER = "penstock-control-http"
local TIMEOUT_MS = 250
-- Seconds that answers are kept, and how many names are asked for in that time, per worker.
local KEEP_S, MOST = 10, 50

local known, asked, since = {}, 0, 0

local function ask(handle, name)
  local quoted = name:gsub("[^%w._-]", function(c)
    return ("%%%02X"):format(c:byte())
  end)
  local headers = { [":method"] = "GET", [":path"] = "/nearest?name=" .. quoted, [":authority"] = "penstock" }
  -- Throws where the configuration has no control plane.
  local ok, answer = pcall(handle.httpCall, handle, CLUSTER, headers, "", TIMEOUT_MS)
  return ok and answer[":status"] == "200" and answer["x-penstock-nearest"] or ""
end

-- Names like `name`, joined by ", "; "" when there are none, or nobody can say. Yields: headers from before it are dead.
function M.of(handle, name)
  local now = os.time()
  if now - since >= KEEP_S then
    known, asked, since = {}, 0, now
  end
  if not known[name] and asked < MOST then
    asked = asked + 1
    known[name] = ask(handle, name)
  end
  return known[name] or ""
end

return M
