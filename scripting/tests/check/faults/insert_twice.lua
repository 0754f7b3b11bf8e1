local key = "state-" .. avi.vs.client_ip()
avi.vs.table_insert(key, "begun")
if avi.l4.collect(5) then
  avi.vs.table_insert(key, "done")
end
