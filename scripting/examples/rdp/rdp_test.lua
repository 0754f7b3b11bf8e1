-- The Connection Request ([MS-RDPBCGR] 2.2.1.1) with RDP_NEG_REQ after the cookie.
local function request(cookie)
  local variable = cookie .. hex "01 00 0800 03000000"
  return hex "03 00" .. be(11 + #variable, 2) .. string.char(6 + #variable) .. hex "e0 0000 0000 00" .. variable
end

describe("RDP by cookie", function()
  it("brings a user back to one host, however the name is written", function()
    local first = client("198.51.100.7:4242")
    first:send(request("Cookie: mstshash=eltons\r\n"))
    expect(first:log()):equals("user=eltons")
    expect(first):server_receives(request("Cookie: mstshash=eltons\r\n"))
    local other = client("198.51.100.7:4243")
    other:send(request("Cookie: mstshash=alice\r\n"))
    expect(other:server()):differs_from(first:server())
    local again = client("203.0.113.9:4244")
    again:send(request("Cookie: mstshash=Eltons\r\n"))
    expect(again:server()):equals(first:server())
  end)

  it("follows the token of a broker", function()
    -- 10.0.0.102 and 3389 with their bytes turned round.
    local flow = client("198.51.100.7:4242")
    flow:send(request("Cookie: msts=1711276042.15629.0000\r\n"))
    expect(flow):selects("hosts", "10.0.0.102:3389")
    expect(flow:log()):equals("token=10.0.0.102:3389")
  end)

  it("balances a token for a host that is down or unknown, and a request without a cookie", function()
    server("hosts", "10.0.0.102:3389"):down()
    for number, cookie in ipairs({ "Cookie: msts=1711276042.15629.0000\r\n", "Cookie: msts=1.2.0000\r\n", "" }) do
      local flow = client("198.51.100.7:" .. 4241 + number)
      flow:send(request(cookie))
      expect(flow):selects("hosts")
      expect(flow:log()):equals("no cookie")
      expect(flow:server()):differs_from("10.0.0.102:3389")
    end
  end)

  it("resets what is no RDP", function()
    for number, text in ipairs({
      "GET / HTTP/1.1\r\n\r\n",
      hex "0300 000b 06 d0 0000 0000 00",
      hex "0300 0005 00",
      hex "0300 ffff 00",
    }) do
      local flow = client("198.51.100.7:" .. 4241 + number)
      flow:send(text)
      expect(flow):closes("reset")
      expect(flow):logs("no RDP")
    end
  end)
end)
