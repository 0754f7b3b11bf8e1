---@meta _
-- Written from the table in scripting/check/src/api by its tests: WEIR_BLESS=1 cargo test -p script-check

---Whether `s` begins with `t`; plain text, case-sensitive.
---@param s string
---@param t string
---@return boolean
function string.beginswith(s, t) end

---Whether `s` ends with `t`; plain text, case-sensitive.
---@param s string
---@param t string
---@return boolean
function string.endswith(s, t) end

---Whether `t` is in `s`; plain text, case-sensitive.
---@param s string
---@param t string
---@return boolean
function string.contains(s, t) end
