avi.vs.reqvar.seen = { first = true }
