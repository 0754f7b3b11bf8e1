local function need(n)
  if #avi.l4.read() < n then
    avi.l4.collect(n)
  end
end
local payload = avi.l4.read()
need(12)
avi.vs.log(string.byte(payload, 12))
