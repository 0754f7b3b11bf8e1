-- A lookup that is meant to prolong: the entry lives while it is used.
local server = avi.vs.table_lookup("sessions", avi.vs.client_ip())
if server then
  avi.pool.select("main", server)
else
  avi.vs.table_insert("sessions", avi.vs.client_ip(), "10.0.0.1")
end
