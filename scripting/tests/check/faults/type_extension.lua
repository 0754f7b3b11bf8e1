local seen = avi.vs.table_lookup("clients", avi.vs.client_ip(), -300)
avi.vs.log(seen)
