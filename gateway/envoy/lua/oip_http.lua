-- Open Inference Protocol HTTP: the server's own model name and version in paths, the public ones in JSON answers.
--
-- Pure functions on strings; the tensors themselves (JSON arrays, or the bytes of the binary extension) are never read.
local text = require("text")

local M = {}

-- The server's path for a caller's path.
function M.path(plan, path)
  local rest = path:match("^/v2/models/[^/?]+(.*)$") or ""
  rest = rest:gsub("^/versions/[^/?]+", "")
  return "/v2/models/" .. plan.served_name .. "/versions/" .. plan.served_version .. rest
end

local function skip_space(s, i)
  return s:find("[^ \t\r\n]", i) or #s + 1
end

-- Index after the JSON string that starts at s[i]; nil if it does not end.
local function string_end(s, i)
  i = i + 1
  while true do
    local j = s:find('["\\]', i)
    if not j then
      return nil
    elseif s:byte(j) == 34 then
      return j + 1
    end
    i = j + 2
  end
end

-- Index after the JSON value at s[i]; nil if it does not end.
local function value_end(s, i)
  local c = s:byte(i)
  if c == 34 then
    return string_end(s, i)
  elseif c ~= 123 and c ~= 91 then
    return s:find("[,%]}]", i) or nil
  end
  local depth = 0
  while i do
    c = s:byte(i)
    if c == 34 then
      i = string_end(s, i)
    elseif c == 123 or c == 91 then
      depth = depth + 1
      i = i + 1
    elseif c == 125 or c == 93 then
      depth = depth - 1
      i = i + 1
      if depth == 0 then
        return i
      end
    else
      i = i + 1
    end
    i = i and s:find('["%[%]{}]', i)
  end
  return nil
end

local edit_object

-- Objects in the array at s[i], edited in place; index after it.
local function edit_array(plan, s, i, parts)
  i = skip_space(s, i + 1)
  while s:byte(i) == 123 do
    i = edit_object(plan, s, i, parts)
    if not i then
      return nil
    end
    i = skip_space(s, i)
    if s:byte(i) == 44 then
      i = skip_space(s, i + 1)
    end
  end
  return s:byte(i) == 93 and i + 1 or nil
end

-- `parts` collects {from, to, replacement} in order.
function edit_object(plan, s, i, parts)
  local name, version = '"' .. plan.served_name .. '"', '"' .. plan.served_version .. '"'
  local left = 2 -- of an inference answer: stop when both are found, the rest is tensors
  i = skip_space(s, i + 1)
  while s:byte(i) == 34 do
    local after = string_end(s, i)
    if not after then
      return nil
    end
    local key = s:sub(i + 1, after - 2)
    local from = skip_space(s, after)
    if s:byte(from) ~= 58 then
      return nil
    end
    from = skip_space(s, from + 1)
    local upto
    if key == "model_stats" and s:byte(from) == 91 then
      upto = edit_array(plan, s, from, parts)
    else
      upto = value_end(s, from)
      if not upto then
        return nil
      end
      local value = s:sub(from, math.min(upto - 1, from + 512))
      if (key == "model_name" or key == "name") and value == name then
        parts[#parts + 1] = { from, upto, text.json_string(plan.model) }
        left = key == "model_name" and left - 1 or left
      elseif (key == "model_version" or key == "version") and value == version then
        parts[#parts + 1] = { from, upto, text.json_string(plan.version) }
        left = key == "model_version" and left - 1 or left
      elseif key == "versions" and value:gsub("%s", "") == "[" .. version .. "]" then
        parts[#parts + 1] = { from, upto, "[" .. text.json_string(plan.version) .. "]" }
      end
    end
    if not upto then
      return nil
    end
    if left == 0 then
      return upto
    end
    i = skip_space(s, upto)
    if s:byte(i) == 44 then
      i = skip_space(s, i + 1)
    end
  end
  return i + 1
end

-- `body` with the public names in its JSON part; a body that is not such JSON comes back as it is.
function M.restore(plan, body)
  local first = skip_space(body, 1)
  if body:byte(first) ~= 123 then
    return body
  end
  local parts = {}
  edit_object(plan, body, first, parts)
  if #parts == 0 then
    return body
  end
  local pieces, from = {}, 1
  for _, part in ipairs(parts) do
    pieces[#pieces + 1] = body:sub(from, part[1] - 1)
    pieces[#pieces + 1] = part[3]
    from = part[2]
  end
  pieces[#pieces + 1] = body:sub(from)
  return table.concat(pieces)
end

-- Whether the server's error text says that the caller's request could not be understood. Triton answers 500 to JSON
-- that lacks what it needs, which must not count against the version.
function M.blames_caller(body)
  local lower = body:sub(1, 4096):lower()
  return lower:find("unable to parse", 1, true) ~= nil
    or lower:find("failed to parse", 1, true) ~= nil
    or lower:find("must specify", 1, true) ~= nil
end

return M
