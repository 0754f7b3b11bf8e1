local name = avi.ssl.server_name()
avi.vs.log(name)
