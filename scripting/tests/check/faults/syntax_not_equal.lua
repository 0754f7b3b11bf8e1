if avi.vs.port() != "443" then
  avi.vs.close_conn()
end
