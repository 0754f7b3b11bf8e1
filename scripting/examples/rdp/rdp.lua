-- RDP: who was sent to a session host by its broker reaches it; others stay on one host by their name.
local POOL, LIFETIME = "hosts", 28800

-- The Connection Request ([MS-RDPBCGR] 2.2.1.1): a TPKT header (RFC 1006) with the length of all, then X.224, whose fixed
-- part has 7 bytes. Waits for all of it and gives what follows.
local function request()
  avi.l4.collect(4)
  local version, _, high, low = avi.l4.read(4):byte(1, 4)
  local length = high * 256 + low
  if version ~= 3 or length < 11 or length > 1024 then
    return nil
  end
  avi.l4.collect(length)
  local text = avi.l4.read(length)
  -- 0xE0 is a Connection Request (X.224, 13.3).
  return text:byte(6) == 0xE0 and text:sub(12) or nil
end

-- A routing token "msts=ADDRESS.PORT.RESERVED": both are decimal numbers with their bytes turned round.
local function host_of(token)
  local address, port = token:match("^Cookie: msts=(%d+)%.(%d+)%.0000\r\n")
  if address == nil then
    return nil
  end
  address, port = tonumber(address), tonumber(port)
  local bytes = {}
  for place = 1, 4 do
    bytes[place] = address % 256
    address = math.floor(address / 256)
  end
  return table.concat(bytes, "."), port % 256 * 256 + math.floor(port / 256)
end

local text = request()
if text then
  local host, port = host_of(text)
  local user = text:match("^Cookie: mstshash=([^\r\n]+)\r\n")
  if host and avi.pool.get_server_status(POOL, host, port) == 1 then
    avi.pool.select(POOL, host, port)
    avi.vs.log("token=", host, ":", port)
  elseif user then
    avi.vs.persist(user:lower(), LIFETIME)
    avi.vs.log("user=", user)
  else
    avi.vs.log("no cookie")
  end
else
  avi.vs.log("no RDP", avi.SIG_ENABLE)
  avi.vs.close_conn(true)
end
