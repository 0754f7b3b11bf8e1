local payload = avi.l4.read()
avi.vs.log(strnig.byte(payload))
