local address, port = avi.pool.get_server_info()
avi.vs.log(address, ":", port, " ", avi.vs.reqvar.tls)
avi.vs.table_insert("answers", avi.vs.client_ip(), avi.l4.read(2))
if avi.l4.read(1, 0, "client") == "x" then
  avi.vs.close_conn()
end
