avi.vs.log("odd", avi.SIG_ENABEL)
