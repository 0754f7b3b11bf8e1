local state = avi.vs.table_lookup("state", avi.vs.client_ip(), 0)
if state then
  avi.vs.table_insert("state", avi.vs.client_ip(), "known")
end
