if avi.vs.port() == "443" then
  break
end
