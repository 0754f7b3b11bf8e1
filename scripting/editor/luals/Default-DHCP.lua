---@meta Default-DHCP
-- Written from the table in scripting/check/src/api by its tests: WEIR_BLESS=1 cargo test -p script-check

---Header and options of a DHCP message.
local M = {}

---Takes a message apart.
---
---Available in: request, response.
---@param payload string what `avi.l4.read()` gave
---@return { [string]: string|number|nil }? header `op htype hlen hops xid secs flags ciaddr yiaddr siaddr giaddr chaddr sname file`; nil if malformed
---@return { [integer]: string|nil }? options by number
function M.getDHCPParamsAndOptions(payload) end

---The client identifier.
---
---Available in: request, response.
---@param options table? as `getDHCPParamsAndOptions` gave them
---@return integer? kind the hardware type
---@return string? mac the client's, as text
function M.getOption61(options) end

return M
