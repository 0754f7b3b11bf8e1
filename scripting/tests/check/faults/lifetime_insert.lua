avi.vs.table_insert("clients", avi.vs.client_ip(), "seen", 60)
