local value, left = avi.vs.table_lookup("sessions", avi.vs.client_ip())
avi.vs.log(value, " for ", left)
