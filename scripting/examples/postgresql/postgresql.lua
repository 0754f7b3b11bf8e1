-- PostgreSQL: the name of the database chooses the pool.
-- Database -> pool. Each pool must be attached to the DataScript set.
local pools = {
  sales = "sales",
  archive = "archive",
}
-- The codes that stand where a version does ("Frontend/Backend Protocol", Message Formats).
local SSL_REQUEST, GSS_REQUEST, CANCEL = 80877103, 80877104, 80877102

local function number(text, at)
  local a, b, c, d = text:byte(at, at + 3)
  return ((a * 256 + b) * 256 + c) * 256 + d
end

-- Waits for the whole first message: length, version or code, and what follows them; nil if it is too long or short.
local function startup()
  avi.l4.collect(8)
  local head = avi.l4.read(8)
  local length, code = number(head, 1), number(head, 5)
  if length < 8 or length > 10000 then
    return nil
  end
  avi.l4.collect(length)
  return code, avi.l4.read(length):sub(9)
end

-- Name and value, each ended by a zero byte; a zero byte alone ends them all.
local function parameters(text)
  local found = {}
  for name, value in text:gmatch("(%Z+)%z(%Z*)%z") do
    found[name] = value
  end
  return found
end

local code, text = startup()
if code == SSL_REQUEST or code == GSS_REQUEST then
  -- The client waits for an answer that only a server can give.
  avi.vs.log("asks for encryption: default pool")
elseif code == CANCEL then
  avi.vs.log("cancels: default pool")
elseif code and math.floor(code / 65536) == 3 then
  local found = parameters(text)
  local database = found.database or found.user
  avi.vs.log("database=", database)
  local pool = database and pools[database]
  if pool then
    avi.pool.select(pool)
  end
else
  avi.vs.log("no PostgreSQL", avi.SIG_ENABLE)
  avi.vs.close_conn(true)
end
