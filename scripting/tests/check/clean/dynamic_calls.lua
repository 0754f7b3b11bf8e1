local pools = { a = "main", b = "other" }
local which = avi.l4.read(1)
local arguments = { pools[which], "10.0.0.1" }
if pools[which] then
  avi.pool.select(pools[which])
  avi.pool.select(unpack(arguments))
  avi.pool["sel" .. "ect"](pools[which])
end
local choose = avi.pool.select
choose = pools.choose or choose
choose("main")
for _, name in ipairs({ "client_ip", "client_port" }) do
  avi.vs.log(avi.vs[name](), " ")
end
local function each(...)
  avi.vs.table_insert(...)
end
each("k", "v")
