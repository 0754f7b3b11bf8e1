local udp, tcp = { to = "192.0.2.10:53", proto = "udp" }, { to = "192.0.2.10:53", proto = "tcp" }

describe("DNS over UDP", function()
  it("sends each name to the pool of its zone", function()
    local flow = client("198.51.100.7:4242", udp)
    flow:send(file "internal.bin")
    expect(flow):selects("internal")
    expect(flow):logs("name=db1.internal.example")
    flow:send(file "lab.bin")
    expect(flow):selects("lab")
    flow:send(file "www.bin")
    expect(flow):selects("public")
  end)

  it("knows the zone itself and the root, and no zone that only ends alike", function()
    local function question(name)
      return hex "1d1d 0100 0001 0000 0000 0000" .. name .. hex "0001 0001"
    end
    local zone = client("198.51.100.7:4242", udp)
    zone:send(question("\8internal\7example\0"))
    expect(zone):selects("internal")
    local root = client("198.51.100.7:4243", udp)
    root:send(question("\0"))
    expect(root):selects("public")
    expect(root:log()):equals("name=.")
    local alike = client("198.51.100.7:4244", udp)
    alike:send(question("\9xinternal\7example\0"))
    expect(alike):selects("public")
  end)

  it("drops answers, cut names and pointers", function()
    for number, text in ipairs({
      "garbage",
      hex "1d1d 8180 0001 0000 0000 0000 00 0001 0001",
      hex "1d1d 0100 0001 0000 0000 0000 08 696e74",
      hex "1d1d 0100 0001 0000 0000 0000 c00c 0001 0001",
      hex "1d1d 0100 0000 0000 0000 0000 00 0001 0001",
    }) do
      local flow = client("198.51.100.7:" .. 4241 + number, udp)
      flow:send(text)
      expect(flow):closes()
      expect(flow):logs("no DNS query")
    end
  end)
end)

describe("DNS over TCP", function()
  it("reads the message after its length", function()
    local flow = client("198.51.100.7:4242", tcp)
    flow:send(file "internal_tcp.bin")
    expect(flow):selects("internal", "10.0.0.42:53")
    expect(flow:log()):equals("name=db1.internal.example")
    expect(flow):server_receives(file "internal_tcp.bin")
  end)

  it("resets a length that no message has", function()
    local flow = client("198.51.100.7:4242", tcp)
    flow:send(be(11, 2) .. ("x"):rep(11))
    expect(flow):closes("reset")
  end)
end)
