local big, hex = 10LL, 0xFFULL
for i = 1, 3 do
  if i == 2 then
    goto continue
  end
  avi.vs.log(i, tostring(big + hex))
  ::continue::
end
local s = [[
long]] .. 'quote\'d' .. "\65\x42"
repeat
  local done = #s > 0
until done
while false do end
local t = { 1, "two", three = 3, [4] = { 5 } }
t.three, t[5] = t[4][1], nil
avi.vs.log((...), select("#", ...), t.three, -2 ^ 2, not t)
