avi.vs.persist(avi.vs.client_ip(), 600, "mane")
