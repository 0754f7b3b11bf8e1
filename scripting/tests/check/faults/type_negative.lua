local NEGATIVE = -1
local last = avi.l4.read(1, NEGATIVE)
avi.vs.log(last)
