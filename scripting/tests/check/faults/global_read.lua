local payload = avi.l4.read()
avi.vs.log(#payload, " ", playload)
