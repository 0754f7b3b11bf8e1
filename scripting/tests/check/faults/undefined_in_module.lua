local tls = require "Default-TLS"
if tls.sanitycheck(avi.l4.read()) then
  avi.vs.log("tls")
end
