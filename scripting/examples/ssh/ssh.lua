-- One port for SSH and TLS: the first bytes tell them apart. Both clients speak first.
avi.l4.collect(1)
local first = avi.l4.read(1)
if first == "\22" then
  -- 22 is a TLS handshake record (RFC 8446, section 5.1).
  avi.pool.select("web")
  avi.vs.log("tls")
elseif first == "S" and avi.l4.collect(8) and avi.l4.read(8) == "SSH-2.0-" then
  -- "SSH-protoversion-softwareversion SP comments CR LF" in at most 255 bytes (RFC 4253, section 4.2).
  local buffered = 8
  local banner
  repeat
    buffered = avi.l4.collect(buffered + 1)
    banner = avi.l4.read(math.min(buffered, 255)):match("^SSH%-2%.0%-([^\r\n]*)\r?\n")
  until banner or buffered >= 255
  avi.pool.select("ssh")
  avi.vs.log("ssh=", banner or "a banner without an end")
else
  avi.vs.log("neither SSH nor TLS", avi.SIG_ENABLE)
  avi.vs.close_conn(true)
end
