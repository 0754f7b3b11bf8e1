-- Diameter: a session stays on one server, found by its Session-Id; a peer that has none yet, by its Origin-Host.
local LIFETIME = 3600
-- Longest message that is read, in bytes.
local MOST = 16384
local SESSION_ID, ORIGIN_HOST = 263, 264

-- A big-endian number of `width` bytes.
local function number(text, at, width)
  local value = 0
  for place = at, at + width - 1 do
    value = value * 256 + text:byte(place)
  end
  return value
end

-- Waits for the whole first message (RFC 6733, section 3): version, 3 bytes of length, ...
local function message()
  avi.l4.collect(4)
  local head = avi.l4.read(4)
  local length = number(head, 2, 3)
  if head:byte() ~= 1 or length < 20 or length > MOST then
    return nil
  end
  avi.l4.collect(length)
  return avi.l4.read(length)
end

-- The AVPs without a vendor, by their codes; of several with one code the first. Nil if one is malformed.
local function avps(text)
  local found, at = {}, 21
  while at <= #text do
    if at + 7 > #text then
      return nil
    end
    local code, length = number(text, at, 4), number(text, at + 5, 3)
    if length < 8 or at + length - 1 > #text then
      return nil
    end
    local has_vendor = text:byte(at + 4) >= 128
    if not has_vendor and found[code] == nil then
      found[code] = text:sub(at + 8, at + length - 1)
    end
    at = at + length + -length % 4
  end
  return found
end

local text = message()
local found = text and avps(text)
local key = found and (found[SESSION_ID] or found[ORIGIN_HOST])
if key then
  avi.vs.persist(key, LIFETIME)
  avi.vs.log(found[SESSION_ID] and "session=" or "peer=", key)
else
  avi.vs.log("no Diameter", avi.SIG_ENABLE)
  avi.vs.close_conn(true)
end
