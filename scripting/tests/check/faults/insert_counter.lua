-- Counts the connections of a client: it stays at 1.
local client = avi.vs.client_ip()
local count = avi.vs.table_lookup("counts", client, 0)
if count == nil then
  avi.vs.table_insert("counts", client, "1", 600)
else
  avi.vs.table_insert("counts", client, count + 1, 600)
end
