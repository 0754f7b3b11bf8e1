station = avi.vs.client_ip()
avi.vs.persist(station)
