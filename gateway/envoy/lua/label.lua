-- The predicted label per row, as a JSON array: what feedback about a request is compared with.
--
-- Goes into dynamic metadata, from there into the access log. An output with one value per row is the label itself; of a
-- vector per row, the index of the largest value is.
local answers = require("answer")
local bit = require("bit")
local digits = require("digits")
local buffers = require("buffers")
local ffi = require("ffi")
local halves = require("halves")
local json_write = require("json_write")

local band = bit.band

local M = {}

-- Dynamic metadata is copied into every log entry; labels beyond this many bytes are left out.
local LONGEST = 1024

local out = buffers.new()
local cell = ffi.new("union { float f; uint32_t u; }")

local function float_of(bits)
  if band(bits, 0x7F800000) == 0x7F800000 then -- never load a NaN from outside
    return band(bits, 0x7FFFFF) ~= 0 and -(1 / 0) or bits < 0 and -(1 / 0) or bits >= 2147483648 and -(1 / 0) or 1 / 0
  end
  cell.u = bits
  return cell.f
end

local READ = {
  FP32 = function(source, k) return float_of(source[k]) end,
  FP16 = function(source, k) return float_of(halves.fp16_bits32(source[k])) end,
  BF16 = function(source, k) return float_of(halves.bf16_bits32(source[k])) end,
  FP64 = function(source, k)
    local high = source[2 * k + 1]
    if band(high, 0x7FF00000) == 0x7FF00000 then
      local nan = band(high, 0xFFFFF) ~= 0 or source[2 * k] ~= 0
      return (nan or high >= 2147483648) and -(1 / 0) or 1 / 0
    end
    return ffi.cast("const double *", source)[k]
  end,
}
local function whole(source, k)
  return source[k]
end

local function index_of_largest(source, first, count, read)
  local best, at = read(source, first), 0
  for j = 1, count - 1 do
    local v = read(source, first + j)
    if v > best then
      best, at = v, j
    end
  end
  return at
end

-- JSON array of labels, or nil when there is none to tell. A row whose label does not fit ends the array.
function M.of(plan, answer)
  local field = plan.label
  local tensor = field and answer.tensors[field.index]
  if not tensor or tensor.count == 0 or (field.width == 0 and tensor.count ~= 1) then
    return nil
  end
  local source = field.width > 0 and ffi.cast(field.print_t, tensor.p + tensor.at)
  local p = out:reserve(LONGEST + 64)
  p[0] = 91
  local o, i = 1, tensor.at
  for row = 0, answer.rows - 1 do
    local start = o
    if row > 0 then
      p[o] = 44
      o = o + 1
    end
    if field.width == 0 then
      local size = answers.element_size(tensor.p, i)
      if o + 6 * size + 32 > LONGEST then
        o = start
        break
      end
      o = json_write.put_bytes(p, o, tensor.p, i + 4, i + 4 + size)
      i = i + 4 + size
    elseif tensor.count == 1 then
      o = digits[field.datatype](p, o, source, row)
    else
      o = digits.put_whole(p, o, index_of_largest(source, row * tensor.count, tensor.count, READ[field.datatype] or whole))
    end
    if o >= LONGEST then
      o = start
      break
    end
  end
  p[o] = 93
  return ffi.string(p, o + 1)
end

return M
