-- The call of RFC 3261, section 24.2.
local function message(first_line, call_header)
  return table.concat({
    first_line,
    "Via: SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bKnashds8",
    "To: Bob <sip:bob@biloxi.com>",
    "From: Alice <sip:alice@atlanta.com>;tag=1928301774",
    call_header,
    "CSeq: 314159 INVITE",
    "Content-Length: 0",
    "",
    "",
  }, "\r\n")
end

local CALL = "a84b4c76e66710"
local invite = message("INVITE sip:bob@biloxi.com SIP/2.0", "Call-ID: " .. CALL)

describe("SIP over UDP", function()
  it("keeps a call on one server, in both forms of the header", function()
    local proxy = client("198.51.100.7:5060", { proto = "udp" })
    proxy:send(invite)
    local first = proxy:server()
    expect(proxy:log()):equals("call=" .. CALL)
    proxy:send(message("INVITE sip:carol@biloxi.com SIP/2.0", "Call-ID: another@198.51.100.7"))
    expect(proxy:server()):differs_from(first)
    proxy:send(message("BYE sip:bob@biloxi.com SIP/2.0", "i:" .. CALL))
    expect(proxy:server()):equals(first)
    proxy:send(message("SIP/2.0 200 OK", "CALL-ID :\t" .. CALL))
    expect(proxy:server()):equals(first)
  end)

  it("drops what is no SIP", function()
    local flow = client("198.51.100.7:5060", { proto = "udp" })
    flow:send("HELO mail.example.com\r\nCall-ID: 1\r\n\r\n")
    expect(flow):closes()
    expect(flow):logs("no SIP")
  end)
end)

describe("SIP over TCP", function()
  it("finds the call after lines that keep the connection alive", function()
    kv.insert(CALL, "10.0.0.51-5060", 1800)
    local flow = client("198.51.100.7:5060", { proto = "tcp" })
    flow:send("\r\n\r\n" .. invite)
    expect(flow):selects("sip", "10.0.0.51:5060")
    expect(flow):server_receives("\r\n\r\n" .. invite)
  end)

  it("waits for the end of the headers", function()
    local flow = client("198.51.100.7:5060", { proto = "tcp" })
    flow:send(invite:sub(1, -3))
    expect(flow):is_waiting()
    flow:send("\r\n")
    expect(flow):selects("sip")
  end)

  it("resets a call without a Call-ID, and headers without an end", function()
    local nameless = client("198.51.100.7:5060", { proto = "tcp" })
    nameless:send(message("INVITE sip:bob@biloxi.com SIP/2.0", "Subject: x"))
    expect(nameless):closes("reset")
    local endless = client("198.51.100.7:5061", { proto = "tcp" })
    endless:send("INVITE sip:bob@biloxi.com SIP/2.0\r\nSubject: ")
    endless:send(("x"):rep(8192), { whole = true })
    expect(endless):closes("reset")
    expect(endless):logs("no SIP")
  end)
end)
