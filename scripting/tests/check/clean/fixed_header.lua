-- What was read with a length does not grow.
avi.l4.collect(4)
local header = avi.l4.read(4)
avi.l4.collect(4 + string.byte(header, 4))
avi.vs.log(string.byte(header, 1), #avi.l4.read())
