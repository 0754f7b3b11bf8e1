local avi_tls = require "Default-TLS"
buffered = avi.l4.collect(20)
payload = avi.l4.read()
len = avi_tls.get_req_buffer_size(payload)
if ( buffered < len ) then
  avi.l4.collect(len)
end
if ( avi_tls.sanity_check(payload) ) then
  local h = avi_tls.parse_record(payload)
  local sname = avi_tls.get_sni(h)
  if sname == nil then
    avi.vs.log("SNI not present")
    avi.vs.close_conn()
  else
    avi.vs.log("SNI=" .. sname)
    avi.vs.persist(sname)
  end
else
  avi.vs.close_conn()
end
