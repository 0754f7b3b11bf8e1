avi.l4.collect(20)
local payload = avi.l4.read()
if avi.l4.collect(5) then
  avi.vs.log(payload:sub(1, 5))
end
