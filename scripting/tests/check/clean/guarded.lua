-- A script that asks first what there is, and catches errors.
if avi.l4.newer then
  avi.l4.newer()
end
local info = avi.pool.get_server_weight and "has weights"
local ok, problem = pcall(avi.pool.select, "nowhere")
if not ok then
  avi.vs.log(problem, info)
end
local debugging = DEBUG or false
if debugging and coroutine then
  avi.vs.log("elsewhere")
end
