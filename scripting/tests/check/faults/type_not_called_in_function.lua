local address = avi.vs.client_ip
local function tell(text)
  -- The text may be a table that knows what to do.
  avi.vs.log(text .. address)
end
tell("from ")
address.known = true
