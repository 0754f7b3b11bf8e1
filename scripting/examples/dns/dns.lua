-- DNS: the name that is asked for chooses the pool, over UDP and TCP.
-- Zone -> pool; the longest zone that the name is in counts.
local zones = {
  ["internal.example"] = "internal",
  ["lab.internal.example"] = "lab",
}

-- Over TCP the length of the message stands before it (RFC 1035, section 4.2.2).
local function message()
  if avi.vs.name() ~= "dns-tcp" then
    return avi.l4.read()
  end
  avi.l4.collect(2)
  local high, low = avi.l4.read(2):byte(1, 2)
  local length = high * 256 + low
  if length < 12 or length > 4096 then
    return nil
  end
  avi.l4.collect(2 + length)
  return avi.l4.read(length, 2)
end

-- The name of the first question, in small letters and without a dot at its end; nil if this is no query. "" is the root.
local function question(text)
  local flags, questions = text:byte(3), text:byte(6)
  if questions == nil or #text < 12 or flags >= 128 or questions == 0 then
    return nil
  end
  local labels, at = {}, 13
  while true do
    local length = text:byte(at)
    if length == nil or length > 63 then
      return nil
    elseif length == 0 then
      return table.concat(labels, "."):lower()
    elseif at + length > #text then
      return nil
    end
    labels[#labels + 1] = text:sub(at + 1, at + length)
    at = at + 1 + length
  end
end

-- The pool of the longest zone.
local function pool_of(name)
  while name do
    if zones[name] then
      return zones[name]
    end
    name = name:match("^[^.]*%.(.+)$")
  end
  return nil
end

local text = message()
local name = text and question(text)
if name then
  avi.vs.log("name=", name == "" and "." or name)
  local pool = pool_of(name)
  if pool then
    avi.pool.select(pool)
  end
  -- Any other name goes to the default pool of the virtual service.
else
  avi.vs.log("no DNS query", avi.SIG_ENABLE)
  avi.vs.close_conn(true)
end
