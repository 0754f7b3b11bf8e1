-- SIP: all messages of a call go to one server, found by the Call-ID. Over TCP the first message decides.
local LIFETIME = 1800
-- Headers that do not end within this many bytes are refused.
local MOST = 8192

-- Waits for the end of the headers. Blank lines before the message keep connections alive (RFC 3261, section 7.5).
local function headers()
  local buffered = avi.l4.collect(1)
  while true do
    local text = avi.l4.read()
    local start = text:find("[^\r\n]")
    local stop = start and text:find("\r\n\r\n", start, true)
    if stop and stop <= MOST then
      return text:sub(start, stop - 1)
    elseif buffered >= MOST then
      return nil
    end
    buffered = avi.l4.collect(buffered + 1)
  end
end

-- A request ends its first line with the version, an answer begins with it.
local function is_sip(text)
  local line = text:match("^[^\r\n]*")
  return string.beginswith(line, "SIP/2.0 ") or string.endswith(line, " SIP/2.0")
end

-- `Call-ID: value`, or `i: value` in the short form.
local function call_id(text)
  for name, value in text:gmatch("\r\n([%w%-]+)[ \t]*:[ \t]*(%S+)") do
    name = name:lower()
    if name == "call-id" or name == "i" then
      return value
    end
  end
  return nil
end

local text = headers()
local call = text and is_sip(text) and call_id(text)
if call then
  avi.vs.persist(call, LIFETIME)
  avi.vs.log("call=", call)
else
  avi.vs.log("no SIP", avi.SIG_ENABLE)
  avi.vs.close_conn(true)
end
