-- Chooses a pool by the server name in a TLS ClientHello (RFC 6066, section 3).
local tls = require("Default-TLS")

local buffered = avi.l4.collect(20)
local payload = avi.l4.read()
local needed = tls.get_req_buffer_size(payload)
if buffered < needed then
  avi.l4.collect(needed)
  payload = avi.l4.read()
end

if not tls.sanity_check(payload) then
  avi.vs.log("no ClientHello")
  avi.vs.close_conn()
  return
end

local name = tls.get_sni(tls.parse_record(payload))
avi.vs.log("server name: ", name)
if name and string.beginswith(name, "green.") then
  avi.pool.select("web-green")
elseif name and string.beginswith(name, "blue.") then
  avi.pool.select("web-blue")
else
  avi.poolgroup.select("web")
end
