-- DHCP: a client meets the same server for all its messages, found by its client identifier or else its MAC address.
local dhcp = require "Default-DHCP"

local header, options = dhcp.getDHCPParamsAndOptions(avi.l4.read())
if header == nil then
  avi.vs.log("no DHCP message")
  avi.vs.close_conn()
else
  local _, mac = dhcp.getOption61(options)
  local client = mac or header.chaddr
  avi.vs.persist(client, 3600)
  avi.vs.log("client=", client)
end
