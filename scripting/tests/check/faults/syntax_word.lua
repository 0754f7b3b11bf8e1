functoin first()
  return avi.l4.read(1)
end
