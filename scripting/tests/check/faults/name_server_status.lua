if avi.pool.get_server_status("main", "10.0.0.7", 80) == 1 then
  avi.vs.log("up")
end
