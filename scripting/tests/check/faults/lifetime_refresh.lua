avi.vs.table_refresh("clients", avi.vs.client_ip(), -60)
