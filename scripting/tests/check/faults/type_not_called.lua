local prefix = "from " .. avi.vs.client_ip
local network = avi.vs.client_ip:sub(1, 3)
local next_port = avi.vs.port + 1
local length = #avi.l4.read
avi.vs.log(prefix, network, next_port, length, -avi.vs.client_port, avi.vs.name.first)
