-- Latin-1 in a comment: ιθ
local tls = require("Default-TLS")
if avi.vs.port() == "443" then
  avi.pool.select("wbe")
else
  avi.pool.select("web", "192.0.2.99")
end
