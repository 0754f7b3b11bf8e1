if avi.vs.port() == "443" && avi.vs.ip() == "192.0.2.10" then
  avi.vs.log("both")
end
