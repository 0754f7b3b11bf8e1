local function first(payload)
  byte = string.byte(payload)
  return byte
end
avi.vs.log(first(avi.l4.read()))
