---@meta Default-Radius
-- Written from the table in scripting/check/src/api by its tests: WEIR_BLESS=1 cargo test -p script-check

---The attributes of a RADIUS packet.
local M = {}

---Takes a packet apart: integers are numbers, addresses text, all else strings.
---
---Available in: request, response.
---@param payload string what `avi.l4.read()` gave
---@return { [string]: string|number|nil }? attributes by number, written as a string: `["31"]`; nil if malformed
function M.parsepacket(payload) end

---The parts of a string.
---
---Available in: request, response.
---@param text string a string
---@param separator string plain text
---@return string[] parts in their order
function M.split(text, separator) end

return M
