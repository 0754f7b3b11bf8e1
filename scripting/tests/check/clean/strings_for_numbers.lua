-- weir takes the text of a number where a number is wanted.
avi.l4.collect("5")
avi.vs.log(avi.l4.read("5", "0"))
avi.pool.select("main", "10.0.0.1", "80")
avi.pool.select("other", "WEB.example", 8080)
if avi.vs.port() == "443" and tonumber(avi.vs.client_port()) > 1024 then
  avi.vs.reqvar.tls = true
end
