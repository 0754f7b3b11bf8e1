avi.vs.log(avi.l4.read(4, 0, "both"))
