-- A parser module: what `require("first-byte")` returns.
local module = {}

-- The first byte of a payload as a string, "" where there is none.
function module.first(payload)
  return payload:sub(1, 1)
end

return module
