-- The same value again renews the lifetime, which is what insert is for.
local server = avi.vs.table_lookup("servers", avi.vs.client_ip(), 0)
if server then
  avi.vs.table_insert("servers", avi.vs.client_ip(), server, 900)
else
  avi.vs.table_insert("servers", avi.vs.client_ip(), "10.0.0.1", 900)
end
