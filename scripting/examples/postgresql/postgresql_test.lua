local function startup(version, parameters)
  local text = version .. parameters
  return be(#text + 4, 4) .. text
end

local VERSION_3 = hex "00030000"

describe("PostgreSQL by database", function()
  it("sends a database to its pool", function()
    local flow = client("198.51.100.7:4242")
    flow:send(file "sales.bin")
    expect(flow):selects("sales")
    expect(flow:log()):equals("database=sales")
    expect(flow):server_receives(file "sales.bin")
  end)

  it("takes the user's name where no database is given", function()
    local flow = client("198.51.100.7:4242")
    flow:send(startup(VERSION_3, "user\0archive\0\0"))
    expect(flow):selects("archive", "10.0.0.92:5432")
  end)

  it("sends the rest to the default pool: other databases, requests for encryption, cancels", function()
    local other = client("198.51.100.7:4242")
    other:send(file "other.bin")
    expect(other):selects("others")
    local encrypted = client("198.51.100.7:4243")
    encrypted:send(file "ssl_request.bin")
    expect(encrypted):selects("others")
    expect(encrypted):logs("asks for encryption")
    local cancel = client("198.51.100.7:4244")
    cancel:send(startup(hex "04d2162e", be(4711, 4) .. be(815, 4)))
    expect(cancel):selects("others")
    expect(cancel):logs("cancels")
  end)

  it("resets what is no PostgreSQL", function()
    for number, text in ipairs({ "GET / HTTP/1.1\r\n\r\n", startup(hex "00020000", "x"), be(4, 4) .. be(0, 4) }) do
      local flow = client("198.51.100.7:" .. 4241 + number)
      flow:send(text)
      expect(flow):closes("reset")
      expect(flow):logs("no PostgreSQL")
    end
  end)
end)
