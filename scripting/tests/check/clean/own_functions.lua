function string.tohex(s)
  return (s:gsub(".", function(c) return string.format("%02X", string.byte(c)) end))
end
function station(payload)
  return string.tohex(payload) .. payload:tohex()
end
local library = string
library.short = function(s) return s:sub(1, 3) end
avi.vs.log(station(avi.l4.read()), string.short("abcdef"))
