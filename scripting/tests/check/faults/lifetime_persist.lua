local MINUTE = 60
avi.vs.persist(avi.vs.client_ip(), MINUTE)
