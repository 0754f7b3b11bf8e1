local radius = require "Default-Radius"
local packet = avi.l4.read()
avi.l4.collect(20)
local attributes = radius.parsepacket(packet)
avi.vs.persist(attributes and attributes["31"])
