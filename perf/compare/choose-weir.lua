-- Who asks for /green gets the green pool; choose-haproxy.lua says the same. Waits for the request.
avi.l4.collect(64)
if string.beginswith(avi.l4.read(64), "GET /green ") then
  avi.pool.select("green")
end
