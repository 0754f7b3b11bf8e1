-- Default-DHCP: header and options of a DHCP message (RFC 2131, 2132, 3396).

local byte, sub, format, find = string.byte, string.sub, string.format, string.find
local concat = table.concat

local COOKIE = "\99\130\83\99"
local COOKIE_AT, OPTIONS_AT = 237, 241
local PAD, END, OVERLOAD, CLIENT_ID = 0, 255, 52, 61
local FILE_FIRST, FILE_LAST, SNAME_FIRST, SNAME_LAST = 109, 236, 45, 108

local M = {}

local function number(text, at, size)
  local value = 0
  for i = at, at + size - 1 do
    value = value * 256 + byte(text, i)
  end
  return value
end

local function address(text, at)
  return concat({ byte(text, at, at + 3) }, ".")
end

local function hex(text)
  local parts = {}
  for i = 1, #text do
    parts[i] = format("%02x", byte(text, i))
  end
  return concat(parts, ":")
end

local function until_zero(text)
  local stop = find(text, "\0", 1, true)
  return stop and sub(text, 1, stop - 1) or text
end

-- Adds the options in the bytes first..last. False where one is longer than what is there.
local function add_options(options, text, first, last)
  local at = first
  while at <= last do
    local code = byte(text, at)
    if code == END then return true end
    if code == PAD then
      at = at + 1
    else
      local size = at < last and byte(text, at + 1)
      if not size or at + 1 + size > last then return false end
      -- RFC 3396: the parts of a split option belong together.
      options[code] = (rawget(options, code) or "") .. sub(text, at + 2, at + 1 + size)
      at = at + 2 + size
    end
  end
  return true
end

-- `options["61"]` is `options[61]`.
local by_text = {
  __index = function(options, key)
    if type(key) == "string" then return rawget(options, tonumber(key)) end
    return nil
  end,
}

-- The header as a table (op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname,
-- file) and the options by number, as they are on the wire. Nil for what is no DHCP message.
function M.getDHCPParamsAndOptions(payload)
  if type(payload) ~= "string" or #payload < OPTIONS_AT - 1 then return nil end
  if sub(payload, COOKIE_AT, OPTIONS_AT - 1) ~= COOKIE then return nil end
  local options = setmetatable({}, by_text)
  if not add_options(options, payload, OPTIONS_AT, #payload) then return nil end
  local overload = byte(rawget(options, OVERLOAD) or "") or 0
  if overload == 1 or overload == 3 then add_options(options, payload, FILE_FIRST, FILE_LAST) end
  if overload == 2 or overload == 3 then add_options(options, payload, SNAME_FIRST, SNAME_LAST) end
  local hardware_length = byte(payload, 3)
  if hardware_length > 16 then return nil end
  return {
    op = byte(payload, 1),
    htype = byte(payload, 2),
    hlen = hardware_length,
    hops = byte(payload, 4),
    xid = number(payload, 5, 4),
    secs = number(payload, 9, 2),
    flags = number(payload, 11, 2),
    ciaddr = address(payload, 13),
    yiaddr = address(payload, 17),
    siaddr = address(payload, 21),
    giaddr = address(payload, 25),
    chaddr = hex(sub(payload, 29, 28 + hardware_length)),
    sname = until_zero(sub(payload, SNAME_FIRST, SNAME_LAST)),
    file = until_zero(sub(payload, FILE_FIRST, FILE_LAST)),
  }, options
end

-- The client identifier (RFC 2132 9.14): hardware type and address as text, "00:1b:21:3c:4d:5e". The address is nil
-- where the identifier is none (types 0 and 255); nothing is given where there is no identifier.
function M.getOption61(options)
  local id = type(options) == "table" and rawget(options, CLIENT_ID)
  if type(id) ~= "string" or #id < 2 then return nil end
  local kind = byte(id, 1)
  if kind == 0 or kind == 255 then return kind, nil end
  return kind, hex(sub(id, 2))
end

return M
