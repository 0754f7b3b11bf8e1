local module = {}
functoin module.first(payload)
  return payload:sub(1, 1)
end
return module
