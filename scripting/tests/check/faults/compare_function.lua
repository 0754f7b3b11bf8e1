if avi.vs.client_ip == "203.0.113.9" then
  avi.vs.close_conn()
end
