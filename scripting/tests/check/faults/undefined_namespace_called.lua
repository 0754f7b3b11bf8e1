avi.vs("log")
