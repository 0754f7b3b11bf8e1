-- A module that returns nothing gives the table of its globals.
separator = ","
function split(text)
  pattern = "[^" .. separator .. "]+"
  return text:gmatch(pattern)
end
