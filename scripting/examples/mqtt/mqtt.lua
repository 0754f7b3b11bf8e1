-- MQTT: a device meets the broker that holds its session, found by the client identifier of its CONNECT.
local LIFETIME = 3600
-- Longest CONNECT that is read, in bytes.
local MOST = 16384
local CONNECT = 0x10

-- A variable byte integer (MQTT 3.1.1, section 2.2.3): its value and the place after it; nil if it goes on.
local function variable(text, at)
  local value, scale = 0, 1
  for place = at, at + 3 do
    local byte = text:byte(place)
    if byte == nil then
      return nil
    end
    value = value + byte % 128 * scale
    if byte < 128 then
      return value, place + 1
    end
    scale = scale * 128
  end
  return nil
end

-- A string after its length in two bytes: the string and the place after it; nil if it is cut.
local function counted(text, at)
  local high, low = text:byte(at, at + 1)
  if low == nil then
    return nil
  end
  local after = at + 2 + high * 256 + low
  if after > #text + 1 then
    return nil
  end
  return text:sub(at + 2, after - 1), after
end

-- Waits for the whole CONNECT; gives what follows its length.
local function connect()
  avi.l4.collect(2)
  if avi.l4.read(1):byte() ~= CONNECT then
    return nil
  end
  for have = 2, 5 do
    avi.l4.collect(have)
    local length, after = variable(avi.l4.read(have), 2)
    if length then
      if length < 12 or length > MOST then
        return nil
      end
      avi.l4.collect(after - 1 + length)
      return avi.l4.read(length, after - 1)
    end
  end
  return nil
end

-- Name of the protocol, level, flags and keep-alive (section 3.1.2), in MQTT 5 properties, then the identifier.
local function client_id(text)
  local name, at = counted(text, 1)
  if name ~= "MQTT" and name ~= "MQIsdp" then
    return nil
  end
  local level = text:byte(at)
  at = at + 4
  if level and level >= 5 then
    local properties, after = variable(text, at)
    if properties == nil then
      return nil
    end
    at = after + properties
  end
  return (counted(text, at))
end

local text = connect()
local id = text and client_id(text)
if id == nil then
  avi.vs.log("no MQTT", avi.SIG_ENABLE)
  avi.vs.close_conn(true)
elseif id == "" then
  -- The broker makes an identifier for this connection: any broker will do.
  avi.vs.log("anonymous")
else
  avi.vs.persist(id, LIFETIME)
  avi.vs.log("client=", id)
end
