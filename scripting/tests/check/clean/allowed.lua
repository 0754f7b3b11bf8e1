-- Each of these is meant, and says so.
counter = 1 -- weir: allow global
-- weir: allow global, compare
other = avi.vs.port() == counter and avi.vs.port() == 443
avi.vs.table_insert("clients", avi.vs.client_ip(), "seen", 60) -- weir: allow lifetime
avi.vs.log(other)
