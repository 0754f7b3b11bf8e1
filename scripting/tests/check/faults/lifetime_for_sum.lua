local hits = avi.vs.table_lookup("hits", avi.vs.client_ip(), 0)
if hits then
  avi.vs.table_insert("hits", avi.vs.client_ip(), hits + 1)
end
