-- No way leads from the collect to the old string.
local payload = avi.l4.read()
if #payload < 5 then
  avi.l4.collect(5)
  avi.vs.log(#avi.l4.read())
  return
end
if payload:sub(1, 1) == "x" then
  avi.l4.collect(9)
else
  avi.vs.log(payload)
end
