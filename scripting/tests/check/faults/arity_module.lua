local radius = require "Default-Radius"
local attributes = radius.parsepacket()
avi.vs.log(attributes)
