if avi.vs.port() == "443" then
  avi.vs.log("tls")
end
end
