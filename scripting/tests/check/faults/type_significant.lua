avi.vs.log(avi.SIG_ENABLE, "odd")
