-- Default-TLS: reads the server name out of a ClientHello (RFC 8446 4.1.2, RFC 6066 3).
--
-- The string that a script hands over is often older than what is buffered now: it was read before the last
-- `collect`. So each function looks into the buffer itself where the string is shorter than the message it begins.

local byte, sub, concat = string.byte, string.sub, table.concat

local HANDSHAKE, CLIENT_HELLO, SERVER_NAME, HOST_NAME = 22, 1, 0, 0
local RECORD_HEADER, MESSAGE_HEADER = 5, 4
-- Longest ciphertext record (RFC 5246 6.2.3), and what an unencrypted ClientHello of several records may take here.
local LONGEST_RECORD, LONGEST_MESSAGE = 18432, 65000

local M = {}

local function number(text, at, size)
  local value = 0
  for i = at, at + size - 1 do
    local b = byte(text, i)
    if not b then return nil end
    value = value * 256 + b
  end
  return value
end

-- The length of the handshake record at `at`, header not counted.
local function record_length(text, at)
  local major = byte(text, at + 1)
  if byte(text, at) ~= HANDSHAKE or (major and major ~= 3) then return nil end
  local length = number(text, at + 3, 2)
  if length and length <= LONGEST_RECORD then return length end
  return nil
end

-- A ClientHello on its way: `parts` are the bytes of the `have` that came in complete records, `at` is where the next
-- record begins, `size` the length of the message once it is known.
local function begin()
  return { parts = {}, have = 0, at = 1 }
end

-- Takes in the records that are complete now. Gives true when the message is; else the least number of bytes that must
-- be buffered for that, or nil if it cannot come any more.
local function advance(hello, text)
  local at, length = hello.at, record_length(text, hello.at)
  while length and length > 0 and at + RECORD_HEADER + length - 1 <= #text do
    hello.parts[#hello.parts + 1] = sub(text, at + RECORD_HEADER, at + RECORD_HEADER + length - 1)
    hello.have = hello.have + length
    at = at + RECORD_HEADER + length
    length = record_length(text, at)
  end
  hello.at = at
  if not hello.size and hello.have >= MESSAGE_HEADER then
    hello.parts = { concat(hello.parts) }
    hello.size = MESSAGE_HEADER + number(hello.parts[1], 2, 3)
  end
  local missing = (hello.size or MESSAGE_HEADER) - hello.have
  if missing <= 0 and hello.size then return true, nil end
  if length == 0 or not length and #text >= at + RECORD_HEADER - 1 then return false, nil end
  if #text >= at and byte(text, at) ~= HANDSHAKE then return false, nil end
  -- Where the next record is known it comes whole; what is missing after it needs another one at least.
  local wanted = at - 1
  if length then
    wanted = wanted + RECORD_HEADER + length
    missing = missing - length
  end
  if missing > 0 then wanted = wanted + RECORD_HEADER + missing end
  return false, wanted <= LONGEST_MESSAGE and wanted or nil
end

-- The bytes of the message, or as many as there are.
local function bytes_of(hello, text)
  if not hello.size or hello.have < hello.size then
    local length = record_length(text, hello.at) or 0
    hello.parts[#hello.parts + 1] = sub(text, hello.at + RECORD_HEADER, hello.at + RECORD_HEADER + length - 1)
  end
  local bytes = concat(hello.parts)
  return hello.size and sub(bytes, 1, hello.size) or bytes
end

-- What is buffered on the event's side, if it goes on where `payload` ends.
local function buffered(payload)
  local ok, now = pcall(avi.l4.read)
  if ok and #now > #payload and sub(now, 1, #payload) == payload then return now end
  return nil
end

-- The first handshake message of what `payload` begins. Where its first record is all there and the message goes on
-- in the next one, waits for that; the first record is the business of the script, which knows its size.
local function whole_message(payload)
  local text, hello = payload, begin()
  local complete, wanted = advance(hello, text)
  if not complete then
    text = buffered(payload) or payload
    complete, wanted = advance(hello, text)
  end
  while not complete and wanted and hello.have > 0 and pcall(avi.l4.collect, wanted) do
    local more = buffered(text)
    if not more then break end
    text = more
    complete, wanted = advance(hello, text)
  end
  return bytes_of(hello, text)
end

function M.get_req_buffer_size(payload)
  if type(payload) ~= "string" then return RECORD_HEADER end
  if #payload < RECORD_HEADER then payload = buffered(payload) or payload end
  local length = record_length(payload, 1)
  return RECORD_HEADER + (length or 0)
end

function M.sanity_check(payload)
  if type(payload) ~= "string" then return false end
  if #payload < RECORD_HEADER + 1 then payload = buffered(payload) or payload end
  local length = record_length(payload, 1)
  return length ~= nil and length > 0 and byte(payload, RECORD_HEADER + 1) == CLIENT_HELLO
end

local function list_end(hello, at, size)
  local length = number(hello, at, size)
  if not length then return nil end
  return at + size + length
end

function M.parse_record(payload)
  if type(payload) ~= "string" or not M.sanity_check(payload) then return nil end
  local hello = whole_message(payload)
  -- Version, random; then session id, cipher suites, compression methods, each a list.
  local at = list_end(hello, MESSAGE_HEADER + 2 + 32 + 1, 1)
  at = at and list_end(hello, at, 2)
  at = at and list_end(hello, at, 1)
  local handle = { type = CLIENT_HELLO, version = number(hello, MESSAGE_HEADER + 1, 2), extensions = {} }
  local extensions_end = at and list_end(hello, at, 2)
  if not extensions_end then return handle end
  at = at + 2
  while at + 4 <= extensions_end do
    local kind, length = number(hello, at, 2), number(hello, at + 2, 2)
    if not kind or not length or at + 4 + length > extensions_end then break end
    if handle.extensions[kind] == nil then handle.extensions[kind] = sub(hello, at + 4, at + 3 + length) end
    at = at + 4 + length
  end
  return handle
end

function M.get_sni(handle)
  local names = type(handle) == "table" and type(handle.extensions) == "table" and handle.extensions[SERVER_NAME]
  if type(names) ~= "string" then return nil end
  local at, names_end = 3, list_end(names, 1, 2)
  while names_end and at + 3 <= names_end do
    local kind, length = byte(names, at), number(names, at + 1, 2)
    if not kind or not length or at + 3 + length > names_end then return nil end
    local name = sub(names, at + 3, at + 2 + length)
    if kind == HOST_NAME then return #name == length and length > 0 and name or nil end
    at = at + 3 + length
  end
  return nil
end

return M
