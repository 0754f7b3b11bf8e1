for _, name in ipairs({ "first", "second" }) do
  _G[name] = function() return name end
end
avi.vs.log(first(), second())
