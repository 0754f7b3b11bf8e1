---@meta Default-TLS
-- Written from the table in scripting/check/src/api by its tests: WEIR_BLESS=1 cargo test -p script-check

---The server name in a TLS ClientHello.
local M = {}

---The bytes that the first record needs.
---
---Available in: request, response.
---@param payload string what `avi.l4.read()` gave
---@return integer bytes 5 when it is no TLS handshake
function M.get_req_buffer_size(payload) end

---Tells whether the payload begins a ClientHello.
---
---Available in: request, response.
---@param payload string what `avi.l4.read()` gave
---@return boolean hello true for a ClientHello
function M.sanity_check(payload) end

---Takes the ClientHello apart. Waits for the rest of one that goes on in another record.
---
---Available in: request, response.
---@param payload string what `avi.l4.read()` gave
---@return table? handle for `get_sni`
function M.parse_record(payload) end

---The server name.
---
---Available in: request, response.
---@param handle table? what `parse_record` gave
---@return string? name nil: there is none
function M.get_sni(handle) end

return M
