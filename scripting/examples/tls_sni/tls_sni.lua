-- TLS passthrough: the server name in the ClientHello chooses the pool. Works however the ClientHello is cut.
local tls = require "Default-TLS"

-- Server name -> pool. Each pool must be attached to the DataScript set.
local pools = {
  ["www.example.com"] = "www",
  ["api.example.com"] = "api",
}

local buffered = avi.l4.collect(20)
local payload = avi.l4.read()
local needed = tls.get_req_buffer_size(payload)
if buffered < needed then
  avi.l4.collect(needed)
end

if tls.sanity_check(payload) then
  local name = tls.get_sni(tls.parse_record(payload))
  avi.vs.log("sni=", name)
  local pool = name and pools[name:lower()]
  if pool then
    avi.pool.select(pool)
  end
  -- Any other name goes to the default pool of the virtual service.
else
  avi.vs.log("no TLS", avi.SIG_ENABLE)
  avi.vs.close_conn(true)
end
avi.l4.ds_done()
