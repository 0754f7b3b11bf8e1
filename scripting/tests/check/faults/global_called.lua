avi.vs.log(to_string(avi.vs.port()))
