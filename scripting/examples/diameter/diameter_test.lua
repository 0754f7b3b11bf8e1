-- AVPs and messages (RFC 6733, sections 3 and 4.1).
local function avp(code, data, vendor)
  local flags = vendor and 0xC0 or 0x40
  local header = vendor and be(vendor, 4) or ""
  local length = 8 + #header + #data
  return be(code, 4) .. string.char(flags) .. be(length, 3) .. header .. data .. ("\0"):rep(-length % 4)
end

local function message(command, application, avps)
  return "\1" .. be(20 + #avps, 3) .. "\128" .. be(command, 3) .. be(application, 4) .. be(7, 4) .. be(9, 4) .. avps
end

local HOST = avp(264, "gw1.access.example") .. avp(296, "access.example")
local SESSION = "gw1.access.example;1876543210;523"
-- Credit-Control (RFC 8506), and Capabilities-Exchange, which has no session (RFC 6733, section 5.3.1).
local credit = message(272, 4, avp(263, SESSION) .. HOST .. avp(258, be(4, 4)))
local capabilities = message(257, 0, HOST .. avp(257, be(1, 2) .. hex "c6336407") .. avp(269, "gateway"))

describe("Diameter by session", function()
  it("brings a session back to its server", function()
    kv.insert(SESSION, "10.0.0.71-3868", 3600)
    local flow = client("198.51.100.7:4242")
    flow:send(credit)
    expect(flow):selects("diameter", "10.0.0.71:3868")
    expect(flow:log()):equals("session=" .. SESSION)
  end)

  it("goes by the peer where there is no session yet", function()
    local first = client("198.51.100.7:4242")
    first:send(capabilities)
    expect(first:log()):equals("peer=gw1.access.example")
    local other = client("198.51.100.7:4243")
    other:send(credit)
    expect(other:server()):differs_from(first:server())
    local again = client("198.51.100.7:4244")
    again:send(capabilities)
    expect(again:server()):equals(first:server())
  end)

  it("does not take an AVP of a vendor for the session", function()
    local flow = client("198.51.100.7:4242")
    flow:send(message(272, 4, avp(263, "not this one", 10415) .. avp(263, SESSION)))
    expect(flow:log()):equals("session=" .. SESSION)
  end)

  it("resets garbage", function()
    for number, text in ipairs({
      "GET / HTTP/1.1\r\n\r\n",
      message(272, 4, be(263, 4) .. "\64" .. be(4, 3)),
      message(272, 4, be(263, 4) .. "\64" .. be(400, 3)),
      message(272, 4, "\0\0"),
      message(272, 4, ""),
      "\1\0\0\19" .. ("\0"):rep(16),
    }) do
      local flow = client("198.51.100.7:" .. 4241 + number)
      flow:send(text)
      expect(flow):closes("reset")
      expect(flow):logs("no Diameter")
    end
  end)
end)
