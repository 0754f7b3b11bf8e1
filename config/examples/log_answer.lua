-- Notes the first byte of the server's answer: the code of a RADIUS packet (RFC 2865, section 3).
avi.vs.log("answer code ", string.byte(avi.l4.read()))
