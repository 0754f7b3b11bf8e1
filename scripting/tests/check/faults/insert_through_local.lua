local count = tonumber((avi.vs.table_lookup("n", avi.vs.client_ip(), 0))) or 0
local seen = avi.vs.table_lookup("seen", "last", 0)
local text = "after " .. tostring(seen)
avi.vs.table_insert("seen", "last", text)
avi.vs.log(count)
