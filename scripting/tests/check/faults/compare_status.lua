if avi.pool.get_server_status("main", "10.0.0.1", 80) then
  avi.pool.select("main", "10.0.0.1", 80)
end
