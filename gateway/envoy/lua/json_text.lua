-- The JSON text being read: spaces, strings with their escapes, keys, and errors that say at which byte.
--
-- Used by `json_read` and its parts. What is read is module-level state, because closures per request would cost more
-- than the reading; nothing yields while a body is read.
local bit = require("bit")
local errors = require("errors")
local ffi = require("ffi")
local text = require("text")

local bxor = bit.bxor
local invalid = errors.invalid

local M = {}

-- Longer keys are unknown fields; bounds what an error repeats.
local LONGEST_KEY = 4096

-- `held` keeps the Lua string alive while only the pointer is used.
local p, held

-- Starts on `body` (a Lua string, so a NUL follows its last byte); its bytes and their number.
function M.begin(body)
  held = body
  p = ffi.cast("const uint8_t *", body)
  return p, #body
end

local function skip_space(i)
  local c = p[i]
  while c == 32 or c == 10 or c == 13 or c == 9 do
    i = i + 1
    c = p[i]
  end
  return i
end

local function show(i)
  if i >= #held then
    return "the end of the body"
  end
  local c = p[i]
  if c >= 33 and c <= 126 then
    return "'" .. string.char(c) .. "'"
  end
  return string.format("byte 0x%02x", c)
end

local function malformed(i, expected)
  local received = show(i)
  invalid("MALFORMED_JSON", "", "byte " .. i .. " of the JSON body: expected " .. expected .. ", received " .. received, expected, received)
end

-- The start of the value at p[i], for messages.
local function preview(i)
  local j = i
  while j < #held and j - i < 32 and p[j] ~= 44 and p[j] ~= 93 and p[j] ~= 125 and p[j] >= 32 do
    j = j + 1
  end
  local shown = text.to_utf8(held:sub(i + 1, j))
  if p[i] == 123 then
    return "an object"
  elseif p[i] == 91 then
    return "an array"
  end
  return shown
end

local function is_value(c)
  return c == 34 or c == 123 or c == 91 or c == 45 or c == 116 or c == 102 or c == 110 or bxor(c, 48) <= 9
end

-- Something that is not the datatype's JSON stands at p[i].
local function wrong_type(i, path, expected)
  if not is_value(p[i]) then
    malformed(i, expected)
  end
  local received = preview(i)
  invalid("WRONG_TYPE", path, "expected " .. expected .. ", received " .. received, expected, received)
end

-- String at p[i] (its quote): index of its closing quote, whether it has escapes.
local function string_end(i)
  local j = i + 1
  local escapes, high = false, false
  while true do
    local c = p[j]
    if c == 34 then
      break
    elseif c == 92 then
      escapes = true
      j = j + 1
      if p[j] < 32 then
        malformed(j, "an escape")
      end
    elseif c < 32 then
      malformed(j, j >= #held and "'\"'" or "no control character in a string")
    elseif c >= 128 then
      high = true
    end
    j = j + 1
  end
  if high then
    local bad = text.utf8_end(p, i + 1, j)
    if bad < j then
      malformed(bad, "UTF-8")
    end
  end
  return j, escapes
end

local SIMPLE = { [34] = '"', [92] = "\\", [47] = "/", [98] = "\b", [102] = "\f", [110] = "\n", [114] = "\r", [116] = "\t" }

local function hex4(i)
  local digits = held:match("^%x%x%x%x", i + 1)
  if not digits then
    malformed(i, "four hexadecimal digits")
  end
  return tonumber(digits, 16)
end

-- Value of a string with escapes; p[i] is its opening quote, p[stop] the closing one.
local function unescape(i, stop)
  local parts = {}
  local from = i + 1
  local j = from
  while j < stop do
    if p[j] == 92 then
      parts[#parts + 1] = ffi.string(p + from, j - from)
      local c = p[j + 1]
      if SIMPLE[c] then
        parts[#parts + 1] = SIMPLE[c]
        j = j + 2
      elseif c == 117 then
        local code = hex4(j + 2)
        local after = j + 6
        if code >= 0xDC00 and code <= 0xDFFF then
          malformed(j, "no lone surrogate")
        elseif code >= 0xD800 and code <= 0xDBFF then
          if p[after] ~= 92 or p[after + 1] ~= 117 then
            malformed(j, "no lone surrogate")
          end
          local low = hex4(after + 2)
          if low < 0xDC00 or low > 0xDFFF then
            malformed(j, "no lone surrogate")
          end
          code = 0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00)
          after = after + 6
        end
        parts[#parts + 1] = text.utf8_char(code)
        j = after
      else
        malformed(j + 1, "an escape")
      end
      from = j
    else
      j = j + 1
    end
  end
  parts[#parts + 1] = ffi.string(p + from, stop - from)
  return table.concat(parts)
end

-- String at p[i] as a Lua string, index after it.
local function read_string(i)
  local stop, escapes = string_end(i)
  return escapes and unescape(i, stop) or ffi.string(p + i + 1, stop - i - 1), stop + 1
end

-- Whether p[i..] is exactly `key` (with its quotes); no string is made.
local function is_key(i, key)
  for j = 0, #key - 1 do
    if p[i + j] ~= key:byte(j + 1) then
      return false
    end
  end
  return true
end

local function read_key(i)
  if p[i] ~= 34 then
    malformed(i, "a field name in quotes")
  end
  local key, after = read_string(i)
  if #key > LONGEST_KEY then
    key = text.to_utf8(key:sub(1, 64)) .. "..."
  end
  return key, after
end

local function after_colon(i)
  i = skip_space(i)
  if p[i] ~= 58 then
    malformed(i, "':'")
  end
  return skip_space(i + 1)
end

-- How many values the array has whose values at p[i] (a comma) go on after `read` of them. Strings are skipped whole.
local function count_on(i, read)
  local depth = 0
  while i < #held do
    local c = p[i]
    if c == 34 then
      i = string_end(i)
    elseif c == 91 or c == 123 then
      depth = depth + 1
    elseif c == 93 or c == 125 then
      if depth == 0 then
        return read
      end
      depth = depth - 1
    elseif c == 44 and depth == 0 then
      read = read + 1
    end
    i = i + 1
  end
  return read
end

M.skip_space, M.malformed, M.preview, M.wrong_type = skip_space, malformed, preview, wrong_type
M.string_end, M.unescape, M.read_string = string_end, unescape, read_string
M.is_key, M.read_key, M.after_colon, M.count_on = is_key, read_key, after_colon, count_on

return M
