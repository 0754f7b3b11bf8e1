-- Default-Radius: the attributes of a RADIUS packet (RFC 2865, 2866, 2868, 2869, 3162, 6911).

local byte, sub, find, format = string.byte, string.sub, string.find, string.format
local concat = table.concat

local HEADER, LONGEST = 20, 4096
local EAP_MESSAGE = 79

-- Kinds of attributes; all others are given as they are.
local INTEGER, TAGGED, ADDRESS, ADDRESS6 = {}, {}, {}, {}
for _, number in ipairs({
  5, 6, 7, 10, 12, 13, 15, 16, 23, 27, 28, 29, 37, 38, 40, 41, 42, 43, 45, 46, 47, 48, 49, 51, 52, 53, 55, 61, 62, 72,
  73, 75, 76, 85, 86,
}) do
  INTEGER[number] = true
end
for _, number in ipairs({ 64, 65, 83 }) do TAGGED[number] = true end
for _, number in ipairs({ 4, 8, 9, 14 }) do ADDRESS[number] = true end
for _, number in ipairs({ 95, 98, 168 }) do ADDRESS6[number] = true end

local M = {}

local function big_endian(text, first, last)
  local value = 0
  for i = first, last do
    value = value * 256 + byte(text, i)
  end
  return value
end

-- RFC 5952: the longest run of two or more zero groups, the first of equals, becomes "::".
local function address6(text)
  local groups, best, best_length, start = {}, nil, 1, nil
  for i = 1, 8 do
    local group = big_endian(text, 2 * i - 1, 2 * i)
    groups[i] = format("%x", group)
    start = group == 0 and (start or i) or nil
    if start and i - start + 1 > best_length then
      best, best_length = start, i - start + 1
    end
  end
  if not best then return concat(groups, ":") end
  return concat(groups, ":", 1, best - 1) .. "::" .. concat(groups, ":", best + best_length, 8)
end

local function value_of(number, text)
  if INTEGER[number] and #text == 4 then return big_endian(text, 1, 4) end
  -- RFC 2868 3.1: a tag, then three bytes.
  if TAGGED[number] and #text == 4 then return big_endian(text, 2, 4) end
  if ADDRESS[number] and #text == 4 then return concat({ byte(text, 1, 4) }, ".") end
  if ADDRESS6[number] and #text == 16 then return address6(text) end
  return text
end

-- A table of attributes by number, as text: `["31"]`. Of an attribute that comes more than once the first counts;
-- the parts of an EAP message are joined (RFC 3579 3.1).
function M.parsepacket(payload)
  if type(payload) ~= "string" or #payload < HEADER then return nil end
  local length = big_endian(payload, 3, 4)
  if length < HEADER or length > LONGEST or length > #payload then return nil end
  local attributes, at = {}, HEADER + 1
  while at <= length do
    local number, size = byte(payload, at), byte(payload, at + 1)
    if at + 1 > length or size < 2 or at + size - 1 > length then return nil end
    local key = tostring(number)
    local value = value_of(number, sub(payload, at + 2, at + size - 1))
    if attributes[key] == nil then
      attributes[key] = value
    elseif number == EAP_MESSAGE then
      attributes[key] = attributes[key] .. value
    end
    at = at + size
  end
  return attributes
end

-- The parts of `text` between each `separator`, which is plain text.
function M.split(text, separator)
  if type(text) == "number" then text = tostring(text) end
  if type(text) ~= "string" then return {} end
  if type(separator) == "number" then separator = tostring(separator) end
  if type(separator) ~= "string" or separator == "" then return { text } end
  local parts, at = {}, 1
  while true do
    local first, last = find(text, separator, at, true)
    if not first then break end
    parts[#parts + 1] = sub(text, at, first - 1)
    at = last + 1
  end
  parts[#parts + 1] = sub(text, at)
  return parts
end

return M
