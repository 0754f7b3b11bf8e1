local port = avi.vs.client_port()
if port ~= 53 then
  avi.vs.close_conn()
end
