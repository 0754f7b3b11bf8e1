local M = {}
function M.choose(name)
  avi.pool.select(name)
end
return M
