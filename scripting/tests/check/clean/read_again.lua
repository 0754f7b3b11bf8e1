avi.l4.collect(2)
local payload = avi.l4.read()
local length = string.byte(payload, 2)
if #payload < length then
  avi.l4.collect(length)
  payload = avi.l4.read()
end
avi.vs.log(payload:sub(3))
