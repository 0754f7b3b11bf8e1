-- RADIUS: all requests of one station go to one server, so that it sees the whole of an EAP conversation.
local radius = require "Default-Radius"

local CALLING_STATION_ID = "31"
local LIFETIME = 600

local attributes = radius.parsepacket(avi.l4.read())
if attributes == nil then
  avi.vs.log("no RADIUS packet", avi.SIG_ENABLE)
  avi.vs.close_conn()
else
  local station = attributes[CALLING_STATION_ID]
  if station then
    avi.vs.persist(station, LIFETIME)
    avi.vs.log("station=", station)
  end
end
