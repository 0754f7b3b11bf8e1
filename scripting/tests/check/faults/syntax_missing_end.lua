local first = string.byte(avi.l4.read(1))
if first == 22 then
  avi.vs.log("tls")
