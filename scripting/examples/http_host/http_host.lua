-- HTTP/1: the Host header of the first request chooses the pool.
-- Host -> pool. Each pool must be attached to the DataScript set.
local pools = {
  ["www.example.com"] = "www",
  ["api.example.com"] = "api",
}
-- Headers that do not end within this many bytes are refused.
local MOST = 8192

-- Waits for the blank line after the headers.
local function headers()
  local buffered = avi.l4.collect(16)
  while true do
    local text = avi.l4.read()
    local stop = text:find("\r\n\r\n", 1, true)
    if stop and stop <= MOST then
      return text:sub(1, stop + 1)
    elseif buffered >= MOST or not text:find("^%u") then
      return nil
    end
    buffered = avi.l4.collect(buffered + 1)
  end
end

-- The value of Host without its port, in small letters; nil if there is no such header, or more than one (RFC 9112,
-- section 3.2, has such requests refused).
local function host(text)
  local found
  for name, value in text:gmatch("\r\n([%w%-]+):[ \t]*([^\r\n]*)") do
    if name:lower() == "host" then
      if found then
        return nil
      end
      found = value:lower():gsub("[ \t]+$", ""):gsub(":%d*$", "")
    end
  end
  return found
end

local text = headers()
local name = text and text:find("^%u+ [^\r\n]+ HTTP/1%.[01]\r\n") and host(text)
if name then
  avi.vs.log("host=", name)
  local pool = pools[name]
  if pool then
    avi.pool.select(pool)
  end
  -- Any other name goes to the default pool of the virtual service.
else
  avi.vs.log("no HTTP/1 request with a host", avi.SIG_ENABLE)
  avi.vs.close_conn(true)
end
