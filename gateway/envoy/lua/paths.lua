-- How errors speak of places and counts in a request. Used by all that reads one.
local errors = require("errors")

local M = {}

-- Where in the request a field is, as a path: `instances[2].x`, or `x` for a model that does not batch.
function M.of(plan, row, name)
  return plan.batching and "instances[" .. row .. "]." .. name or name
end

-- "1 value", "4 values".
function M.values(n)
  return n == 1 and "1 value" or n .. " values"
end

function M.wrong_count(path, expected, received)
  errors.invalid("WRONG_COUNT", path, "expected " .. expected .. ", received " .. received, expected, received)
end

return M
