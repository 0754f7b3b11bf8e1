-- Nothing here is the API: the names are the script's own.
local avi = { pool = { selct = print }, l4 = {} }
avi.pool.selct("nope")
avi.l4.anything = 1
do
  local string = { trim = print }
  string.trim(" x ")
end
local function f(require)
  return require("Nothing")
end
f(tostring)
