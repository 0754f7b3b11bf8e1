avi.vs.log(avi.vs)
