if avi.vs.table_lookup("banned", avi.vs.client_ip()) then
  avi.vs.close_conn(true)
end
