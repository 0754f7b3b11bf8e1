-- Meant to let a client in once an hour.
local seen = avi.vs.table_lookup("seen", avi.vs.client_ip())
if not seen then
  avi.vs.table_insert("seen", avi.vs.client_ip(), "yes", 3600)
end
