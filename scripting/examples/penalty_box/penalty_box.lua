-- A client that sends something other than HTTP is not served for ten minutes, on any core.
local BOX, SECONDS = "penalty-box", 600

local client = avi.vs.client_ip()
-- Extending by 0 leaves the entry alone: a penalty is not made longer by asking for it.
local reason, left = avi.vs.table_lookup(BOX, client, 0)
if reason then
  avi.vs.log("boxed: ", reason, ", ", left, " s left")
  avi.vs.close_conn(true)
else
  local start = avi.l4.collect(4) and avi.l4.read(4)
  local methods = { ["GET "] = true, ["POST"] = true, ["HEAD"] = true, ["PUT "] = true }
  if not methods[start] then
    avi.vs.table_insert(BOX, client, "no HTTP", SECONDS)
    avi.vs.log("into the box", avi.SIG_ENABLE)
    avi.vs.close_conn(true)
  end
end
