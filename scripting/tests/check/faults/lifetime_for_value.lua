-- A number at the end of three arguments is the lifetime: this stores the client's address under "hits".
avi.vs.table_insert("hits", avi.vs.client_ip(), 1)
