-- What a test file calls. `host` is the network and the report (world.rs, host.rs); it gives nil and a text where it refuses.
local host = ...

local failure = { __tostring = function(self) return self.place .. ": " .. self.text end }

-- Ends the case. `wanted` and `got` are shown below the text.
local function raise(text, wanted, got)
  error(setmetatable({ place = host.place(), text = text, wanted = wanted, got = got }, failure), 0)
end

local function must(value, problem)
  if value == nil then
    raise(problem)
  end
  return value
end

local function keys_of(methods)
  local keys = {}
  for key in pairs(methods) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

local function no_such(what, key, methods)
  local keys = keys_of(methods)
  local meant = host.nearest(tostring(key), keys)
  local cure = meant and ("did you mean `" .. meant .. "`?") or "there are: " .. table.concat(keys, ", ")
  raise(what .. " has no `" .. tostring(key) .. "`: " .. cure)
end

-- A metatable whose objects have these methods and no others.
local function class(what, methods)
  return {
    __index = function(_, key)
      local method = methods[key]
      if method == nil then
        no_such(what, key, methods)
      end
      return method
    end,
    __newindex = function(_, key)
      raise("nothing can be stored in " .. what .. ": use a local variable for `" .. tostring(key) .. "`")
    end,
    __metatable = what,
  }
end

local function is(object, what)
  return type(object) == "table" and getmetatable(object) == what
end

-- `call` is how it is written, for the message.
local function check_self(self, what, call)
  if not is(self, what) then
    raise("write a colon: " .. call)
  end
end

local function check_bytes(bytes, call)
  if type(bytes) ~= "string" then
    raise(call .. " takes a string of bytes, not a " .. type(bytes) .. ': "text", hex"16 03 01" and file"hello.bin" are some')
  end
  return bytes
end

-- The last argument of `call`: nil, or a table with some of the `known` keys, such as `example`.
local function check_options(options, call, known, example)
  if options ~= nil and type(options) ~= "table" then
    raise("the second argument of " .. call .. " is a table: " .. example)
  end
  for key in pairs(options or {}) do
    if not known[key] then
      no_such("the second argument of " .. call, key, known)
    end
  end
end

-- ---------------------------------------------------------------- bytes
function hex(text)
  check_bytes(text, "hex")
  local digits = text:gsub("[%s:]", "")
  local odd = digits:match("[^%x]")
  if odd then
    raise("hex takes hexadecimal digits and blanks, not " .. host.show(odd))
  elseif #digits % 2 == 1 then
    raise("hex takes two digits for each byte; these are " .. #digits)
  end
  return (digits:gsub("%x%x", function(byte) return string.char(tonumber(byte, 16)) end))
end

function file(name)
  return must(host.file(check_bytes(name, "file")))
end

local function number_bytes(value, width, call)
  if type(value) ~= "number" or type(width) ~= "number" or width < 1 or width > 6 or value < 0 or value >= 256 ^ width or value % 1 ~= 0 then
    raise(call .. " takes a whole number and how many bytes it gets, 1 to 6: " .. call .. "(443, 2)")
  end
  local bytes = {}
  for place = 1, width do
    bytes[place] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(bytes)
end

function le(value, width)
  return number_bytes(value, width, "le")
end

function be(value, width)
  return number_bytes(value, width, "be"):reverse()
end

-- ---------------------------------------------------------------- the network
local FLOW = "a flow"
local flow = {}

local function flow_call(name, arguments, act)
  flow[name] = function(self, ...)
    check_self(self, FLOW, "flow:" .. name .. "(" .. arguments .. ")")
    return act(self, ...)
  end
end

local function facts_of(self)
  return must(host.facts(rawget(self, "id")))
end

local payload_options = { whole = true }

-- flow:send(bytes [, { whole = true }]), flow:reply likewise.
local function payload_call(name)
  flow_call(name, "bytes", function(self, bytes, options)
    check_bytes(bytes, "flow:" .. name)
    check_options(options, "flow:" .. name, payload_options, "{ whole = true }")
    must(host[name](rawget(self, "id"), bytes, options ~= nil and options.whole == true))
  end)
end
payload_call("send")
payload_call("reply")
flow_call("finish", "", function(self) must(host.finish(rawget(self, "id"))) end)
flow_call("reset", "", function(self) must(host.reset(rawget(self, "id"))) end)
flow_call("log", "", function(self) return facts_of(self).log end)
flow_call("server", "", function(self) return facts_of(self).server end)
flow_call("pool", "", function(self) return facts_of(self).pool end)
local flow_class = class(FLOW, flow)

local client_options = { to = true, proto = true }

function client(address, options)
  if type(address) ~= "string" then
    raise('client takes the address and port of a client: client("198.51.100.7:4242")')
  end
  check_options(options, "client", client_options, '{ to = "192.0.2.10:443", proto = "udp" }')
  options = options or {}
  local id = must(host.client(address, options.to, options.proto))
  return setmetatable({ id = id, name = address }, flow_class)
end

function wait(seconds)
  if type(seconds) ~= "number" or not (seconds >= 0 and seconds <= 1e6) then
    raise("wait takes seconds, from 0 to a million: wait(1.5)")
  end
  must(host.wait(seconds))
end

local SERVER = "a server"
local server_methods = {}
for _, state in ipairs({ "up", "down", "disable", "enable" }) do
  server_methods[state] = function(self)
    check_self(self, SERVER, "server(pool, address):" .. state .. "()")
    must(host.set_server(rawget(self, "pool"), rawget(self, "address"), state))
  end
end
local server_class = class(SERVER, server_methods)

function server(pool, address)
  if type(pool) ~= "string" or type(address) ~= "string" then
    raise('server takes a pool and one of its servers: server("web", "10.0.0.20:443")')
  end
  must(host.find_server(pool, address))
  return setmetatable({ pool = pool, address = address }, server_class)
end

-- ---------------------------------------------------------------- tables
local KV = "kv"

local function text_of(value, what)
  if type(value) == "number" then
    return tostring(value)
  elseif type(value) ~= "string" then
    raise(what .. " is a string, not a " .. type(value))
  end
  return value
end

local function kv_of(service)
  local calls = {}
  -- kv.insert([table,] key, value [, lifetime])
  function calls.insert(...)
    local given = { ... }
    local lifetime = 300
    if type(given[#given]) == "number" and #given > 2 then
      lifetime = table.remove(given)
    end
    if #given < 2 or #given > 3 then
      raise('kv.insert takes a key and a value, a table before them and a lifetime after them if wished: kv.insert("box", "198.51.100.7", "bad", 600)')
    end
    local value = text_of(table.remove(given), "the value")
    local key = text_of(table.remove(given), "the key")
    must(host.insert(service, given[1] and text_of(given[1], "the table"), key, value, lifetime))
  end
  -- kv.lookup([table,] key): the value and the seconds left; does not prolong them.
  function calls.lookup(...)
    local given = { ... }
    if #given < 1 or #given > 2 then
      raise('kv.lookup takes a key, and a table before it if wished: kv.lookup("box", "198.51.100.7")')
    end
    local key = text_of(table.remove(given), "the key")
    local found = must(host.lookup(service, given[1] and text_of(given[1], "the table"), key))
    return found.value, found.seconds
  end
  return setmetatable({}, class(KV, calls))
end

kv = kv_of(nil)

-- The tables of one service by its name, where there are several services.
function tables_of(service)
  if type(service) ~= "string" then
    raise('tables_of takes the name of a virtual service: tables_of("https").lookup("key")')
  end
  return kv_of(service)
end

-- ---------------------------------------------------------------- expectations
local EXPECT_FLOW, EXPECT_VALUE = "what is expected of a flow", "what is expected of a value"
local of_flow, of_value = {}, {}

local function flow_expectation(name, arguments, check)
  of_flow[name] = function(self, ...)
    check_self(self, EXPECT_FLOW, "expect(flow):" .. name .. "(" .. arguments .. ")")
    local subject = rawget(self, "subject")
    local facts = facts_of(subject)
    check(facts, "the flow of " .. rawget(subject, "name"), ...)
  end
end

local function went(facts)
  local where
  if facts.pool then
    where = facts.pool .. (facts.server and " (" .. facts.server .. ")" or "")
  else
    where = "nowhere"
  end
  if facts.waiting then
    where = where .. "; the script waits for more bytes"
  elseif facts.closed then
    where = where .. "; it was closed: " .. facts.closed
  end
  if facts.error then
    where = where .. "; the script failed: " .. facts.error
  end
  return where
end

flow_expectation("selects", "pool [, server]", function(facts, who, pool, address)
  if type(pool) ~= "string" or (address ~= nil and type(address) ~= "string") then
    raise('selects takes a pool, and one of its servers if wished: expect(flow):selects("web", "10.0.0.20:443")')
  end
  must(host.find_server(pool, address))
  if facts.pool ~= pool or (address and facts.server ~= address) then
    raise(who .. " should go to", address and pool .. " (" .. address .. ")" or pool, went(facts))
  end
end)

flow_expectation("logs", "text", function(facts, who, text)
  check_bytes(text, "logs")
  if text == "" then
    raise('every log contains "": write expect(flow:log()):equals("")')
  end
  if not facts.log:find(text, 1, true) then
    raise(who .. " should log", host.show(text), host.show(facts.log) .. (facts.error and "; the script failed: " .. facts.error or ""))
  end
end)

local ways = { reset = true, fin = true }

flow_expectation("closes", '["reset" or "fin"]', function(facts, who, how)
  if how ~= nil and not ways[how] then
    raise('closes takes "reset" or "fin", or nothing for either, and for UDP')
  end
  if not facts.closed or (how and facts.closed ~= how) then
    raise(who .. " should be closed" .. (how and " by" or ""), how or "", facts.closed and "closed by " .. facts.closed or went(facts))
  end
end)

flow_expectation("fails", "text", function(facts, who, text)
  check_bytes(text, "fails")
  if not facts.error or not facts.error:find(text, 1, true) then
    raise("the script for " .. who .. " should fail with", host.show(text), facts.error and host.show(facts.error) or "it did not fail")
  end
end)

flow_expectation("runs", "times", function(facts, who, times)
  if type(times) ~= "number" then
    raise("runs takes how often the request script is started: expect(flow):runs(1)")
  end
  if facts.runs ~= times then
    raise("the request script for " .. who .. " should be started", times .. " times", facts.runs .. " times")
  end
end)

flow_expectation("is_waiting", "", function(facts, who)
  if not facts.waiting then
    raise("the script for " .. who .. " should wait for more bytes", "", went(facts))
  end
end)

local function receives(name, key, whom)
  flow_expectation(name, "bytes", function(facts, who, bytes)
    check_bytes(bytes, name)
    if facts[key] ~= bytes then
      raise(whom .. " of " .. who .. " should get", host.show(bytes), host.differs(bytes, facts[key]))
    end
  end)
end
receives("server_receives", "server_received", "the server")
receives("client_receives", "client_received", "the client")

local function value_expectation(name, arguments, check)
  of_value[name] = function(self, ...)
    check_self(self, EXPECT_VALUE, "expect(value):" .. name .. "(" .. arguments .. ")")
    check(rawget(self, "subject"), ...)
  end
end

value_expectation("equals", "value", function(value, wanted)
  if value ~= wanted then
    raise("the value should be", host.show(wanted), host.show(value))
  end
end)
value_expectation("differs_from", "value", function(value, unwanted)
  if value == unwanted then
    raise("the value should differ from", host.show(unwanted), "it is the same")
  end
end)
value_expectation("contains", "text", function(value, text)
  check_bytes(text, "contains")
  if type(value) ~= "string" or not value:find(text, 1, true) then
    raise("the value should contain", host.show(text), host.show(value))
  end
end)
value_expectation("matches", "pattern", function(value, pattern)
  check_bytes(pattern, "matches")
  if type(value) ~= "string" or not value:find(pattern) then
    raise("the value should match the pattern", host.show(pattern), host.show(value))
  end
end)
value_expectation("is_nil", "", function(value)
  if value ~= nil then
    raise("the value should be nil", "", host.show(value))
  end
end)
value_expectation("is_true", "", function(value)
  if value ~= true then
    raise("the value should be true", "", host.show(value))
  end
end)
value_expectation("is_false", "", function(value)
  if value ~= false then
    raise("the value should be false", "", host.show(value))
  end
end)

local flow_class_of, value_class_of = class(EXPECT_FLOW, of_flow), class(EXPECT_VALUE, of_value)

function expect(...)
  if select("#", ...) == 0 then
    raise("expect takes a flow or a value: expect(flow):selects(\"web\"), expect(flow:log()):equals(\"\")")
  end
  local subject = (...)
  host.expected()
  return setmetatable({ subject = subject }, is(subject, FLOW) and flow_class_of or value_class_of)
end

-- ---------------------------------------------------------------- cases
local cases, names, scopes = {}, {}, { { name = "", before = {} } }
local running = false

local function check_case(call, name, body)
  if running then
    raise(call .. " stands outside of `it`, in a `describe` or by itself")
  elseif type(name) ~= "string" or name == "" or type(body) ~= "function" then
    raise(call .. " takes a name and a function: " .. call .. '("name", function() ... end)')
  end
end

function describe(name, body)
  check_case("describe", name, body)
  scopes[#scopes + 1] = { name = scopes[#scopes].name .. name .. ": ", before = {} }
  body()
  scopes[#scopes] = nil
end

function before_each(body)
  if running or type(body) ~= "function" then
    raise("before_each takes a function and stands outside of `it`")
  end
  local before = scopes[#scopes].before
  before[#before + 1] = body
end

function it(name, body)
  check_case("it", name, body)
  local whole = scopes[#scopes].name .. name
  if names[whole] then
    raise("two cases have the name " .. host.show(whole) .. ": give this one another")
  end
  names[whole] = true
  local chain = {}
  for place, scope in ipairs(scopes) do
    chain[place] = scope.before
  end
  local place = host.place()
  local function run()
    for _, before in ipairs(chain) do
      for _, prepare in ipairs(before) do
        prepare()
      end
    end
    body()
  end
  cases[#cases + 1] = { name = whole, place = place, run = run }
end

-- A global that is not there is a slip of the keyboard; one that is set, a forgotten `local`.
setmetatable(_G, {
  __index = function(_, key)
    local known = { describe = 1, it = 1, before_each = 1, client = 1, server = 1, kv = 1, tables_of = 1, wait = 1, expect = 1, hex = 1, file = 1, be = 1, le = 1 }
    local meant = host.nearest(tostring(key), keys_of(known))
    raise("there is no `" .. tostring(key) .. "`" .. (meant and ": did you mean `" .. meant .. "`?" or " here"))
  end,
  __newindex = function(_, key)
    raise("`" .. tostring(key) .. "` would be a global variable: write local before it")
  end,
})

local function explained(problem)
  if getmetatable(problem) == failure then
    return problem
  end
  local text = tostring(problem):gsub("^runtime error: ", "")
  local place, rest = text:match("^([^\n]-:%d+): (.*)$")
  return { place = place or host.place(), text = rest or text }
end

-- Runs a function; gives nil, or what failed.
local function protected(body)
  local good, problem = xpcall(body, explained)
  if good then
    return nil
  end
  return problem
end

return {
  cases = cases,
  load = protected,
  run = function(case)
    running = true
    local problem = protected(case.run)
    running = false
    return problem
  end,
}
