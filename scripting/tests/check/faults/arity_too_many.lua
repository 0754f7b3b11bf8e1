avi.vs.close_conn(true, "because")
