local key
local value = avi.vs.table_lookup(key)
avi.vs.log(value)
