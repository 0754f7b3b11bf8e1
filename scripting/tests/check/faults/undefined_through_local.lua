local pool = avi.pool
local choose = pool.selct
choose("main")
