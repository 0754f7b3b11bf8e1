local reason = avi.vs.table_lookup("banned", avi.vs.client_ip())
if reason ~= nil then
  avi.vs.log(reason)
  avi.vs.close_conn(true)
end
