-- A message as a relay agent passes it on (RFC 2131, section 2; options: RFC 2132).
local function message(hardware_address, options)
  local fixed = hex "01 01 06 01 3903f326 0000 8000 00000000 00000000 00000000 c0000264"
  return fixed .. hardware_address .. ("\0"):rep(10 + 64 + 128) .. hex "63825363" .. options .. "\255"
end

local DISCOVER, REQUEST = hex "350101", hex "350103"
local ALICE, BOB = hex "02000000000a", hex "02000000000b"

describe("DHCP by client", function()
  it("keeps the messages of a client on one server", function()
    local relay = client("198.51.100.1:67")
    relay:send(message(ALICE, DISCOVER))
    local first = relay:server()
    expect(relay):logs("client=02:00:00:00:00:0a")
    relay:send(message(BOB, DISCOVER))
    expect(relay:server()):differs_from(first)
    relay:send(message(ALICE, REQUEST))
    expect(relay:server()):equals(first)
  end)

  it("goes by the client identifier where there is one", function()
    local relay = client("198.51.100.1:67")
    relay:send(message(ALICE, DISCOVER .. hex "3d 07 01 02000000000b"))
    expect(relay):logs("client=02:00:00:00:00:0b")
    expect(kv.lookup("02:00:00:00:00:0b")):contains("10.0.0.4")
    expect(kv.lookup("02:00:00:00:00:0a")):is_nil()
  end)

  it("drops what is no DHCP", function()
    local relay = client("198.51.100.1:67")
    relay:send("garbage")
    expect(relay):closes()
    expect(relay):logs("no DHCP message")
  end)
end)
