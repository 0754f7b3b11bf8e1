if avi.vs.client_port() < 1024 then
  avi.vs.log("privileged")
end
