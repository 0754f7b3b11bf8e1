local client = avi.vs.client_ip()
local count = tonumber((avi.vs.table_lookup("counts", client, 0))) or 0
avi.vs.table_remove("counts", client)
avi.vs.table_insert("counts", client, count + 1, 600)
