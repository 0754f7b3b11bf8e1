local up = avi.pool.get_server_status("main", "10.0.0.1")
avi.vs.log(up)
