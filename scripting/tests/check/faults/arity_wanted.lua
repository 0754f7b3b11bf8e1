avi.vs.persist()
