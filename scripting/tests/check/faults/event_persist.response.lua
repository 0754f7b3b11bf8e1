avi.vs.persist(avi.vs.client_ip())
