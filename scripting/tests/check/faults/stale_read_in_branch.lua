local payload = avi.l4.read()
if #payload < 20 then
  avi.l4.collect(20)
end
avi.vs.log(payload:sub(10, 20))
