-- CONNECT (MQTT 3.1.1 and 5, section 3.1); `rest` follows the identifier.
local function connect(level, properties, id, rest)
  local text = be(4, 2) .. "MQTT" .. string.char(level, 2) .. be(60, 2) .. properties .. be(#id, 2) .. id .. (rest or "")
  local length = #text
  local counted = length < 128 and string.char(length)
    or string.char(length % 128 + 128, math.floor(length / 128))
  return "\16" .. counted .. text
end

describe("MQTT by client identifier", function()
  it("brings a device back to its broker", function()
    local first = client("198.51.100.7:4242")
    first:send(connect(4, "", "sensor-17"))
    expect(first:log()):equals("client=sensor-17")
    local other = client("198.51.100.7:4243")
    other:send(connect(4, "", "sensor-18"))
    expect(other:server()):differs_from(first:server())
    local again = client("203.0.113.9:999")
    again:send(connect(4, "", "sensor-17"))
    expect(again:server()):equals(first:server())
  end)

  it("passes over the properties of version 5, and takes long packets", function()
    kv.insert("sensor-17", "10.0.0.61-1883", 3600)
    local flow = client("198.51.100.7:4242")
    local will = be(5, 2) .. "state" .. be(150, 2) .. ("x"):rep(150)
    -- Session Expiry Interval (0x11) of an hour.
    flow:send(connect(5, hex "05 11 00000e10", "sensor-17", will))
    expect(flow):selects("brokers", "10.0.0.61:1883")
  end)

  it("sends a device without an identifier to any broker, and remembers nothing", function()
    local flow = client("198.51.100.7:4242")
    flow:send(connect(4, "", ""))
    expect(flow):selects("brokers")
    expect(flow:log()):equals("anonymous")
    expect(kv.lookup("")):is_nil()
  end)

  it("resets garbage: other packets, other protocols, lengths without an end", function()
    for number, text in ipairs({
      hex "c000", -- PINGREQ
      "GET / HTTP/1.1\r\n\r\n",
      hex "10ffffffffff",
      "\16\16" .. be(4, 2) .. "HTTP\4\2" .. be(60, 2) .. be(4, 2) .. "name",
      "\16\16" .. be(4, 2) .. "MQTT\4\2" .. be(60, 2) .. be(400, 2) .. "name",
    }) do
      local flow = client("198.51.100.7:" .. 4241 + number)
      flow:send(text)
      expect(flow):closes("reset")
      expect(flow):logs("no MQTT")
    end
  end)
end)
