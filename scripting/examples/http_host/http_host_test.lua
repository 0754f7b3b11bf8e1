describe("HTTP/1 by Host", function()
  it("sends www.example.com to www, with or without a port", function()
    local flow = client("198.51.100.7:4242")
    flow:send(file "www.bin")
    expect(flow):selects("www")
    expect(flow:log()):equals("host=www.example.com")
    expect(flow):server_receives(file "www.bin")
  end)

  it("sends a request with a body, as it is", function()
    local flow = client("198.51.100.7:4242")
    flow:send(file "api.bin")
    expect(flow):selects("api", "10.0.0.22:8080")
    expect(flow):server_receives(file "api.bin")
  end)

  it("sends other names to the default pool", function()
    local flow = client("198.51.100.7:4242")
    flow:send("GET / HTTP/1.0\r\nhost:192.0.2.10\t \r\n\r\n")
    expect(flow):selects("others")
    expect(flow:log()):equals("host=192.0.2.10")
  end)

  it("resets requests without one host, and what is no HTTP/1", function()
    for number, text in ipairs({
      "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      hex "16030100c8010000c403030000000000",
    }) do
      local flow = client("198.51.100.7:" .. 4241 + number)
      flow:send(text)
      expect(flow):closes("reset")
      expect(flow):logs("no HTTP/1 request with a host")
    end
  end)

  it("does not wait for ever for the end of the headers", function()
    local flow = client("198.51.100.7:4242")
    flow:send("GET / HTTP/1.1\r\nHost: www.example.com\r\nCookie: ")
    expect(flow):is_waiting()
    flow:send(("x"):rep(8192), { whole = true })
    expect(flow):closes("reset")
  end)
end)
