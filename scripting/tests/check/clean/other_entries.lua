-- Another table, another key, another value of the variable: none of these is the same entry.
local key = avi.vs.client_ip()
local seen = avi.vs.table_lookup("first", key, 0)
if seen then
  avi.vs.table_insert("second", key, seen .. "!")
  avi.vs.table_insert("first", avi.vs.client_port(), seen .. "!")
end
key = avi.vs.ip()
avi.vs.table_insert("first", key, seen)
if avi.vs.port() == "443" then
  avi.vs.table_insert("branch", "a")
else
  avi.vs.table_insert("branch", "b")
end
