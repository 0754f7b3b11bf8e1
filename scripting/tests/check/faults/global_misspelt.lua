local counter = 0
for i = 1, #avi.l4.read() do
  conter = counter + i
end
avi.vs.log(counter)
