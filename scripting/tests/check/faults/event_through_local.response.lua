local pool = avi.pool
local choose = pool.select
local function send(name)
  choose(name)
end
send("main")
