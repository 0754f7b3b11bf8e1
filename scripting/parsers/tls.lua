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

-- The handshake bytes of the records at the start of `text`, and whether more of them may follow.
local function handshake_bytes(text)
  local parts, at = {}, 1
  while at <= #text and at <= LONGEST_MESSAGE do
    local length = record_length(text, at)
    if not length or length == 0 then return concat(parts), #text < at + RECORD_HEADER - 1 end
    parts[#parts + 1] = sub(text, at + RECORD_HEADER, at + RECORD_HEADER + length - 1)
    at = at + RECORD_HEADER + length
  end
  return concat(parts), at <= LONGEST_MESSAGE
end

-- The first handshake message, as far as it is there; whether it is all there; whether the rest may still come.
local function message(text)
  local bytes, open = handshake_bytes(text)
  local length = number(bytes, 2, 3)
  if not length then return bytes, false, open end
  local size = MESSAGE_HEADER + length
  return sub(bytes, 1, size), #bytes >= size, open and size <= LONGEST_MESSAGE
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
  local text = payload
  local bytes, complete, open = message(text)
  if not complete then
    text = buffered(payload) or payload
    bytes, complete, open = message(text)
  end
  local first = record_length(text, 1)
  if not first or #text < RECORD_HEADER + first then return bytes end
  while not complete and open and #text < LONGEST_MESSAGE do
    if not pcall(avi.l4.collect, #text + 1) then break end
    local more = buffered(text)
    if not more then break end
    text = more
    bytes, complete, open = message(text)
  end
  return bytes
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
