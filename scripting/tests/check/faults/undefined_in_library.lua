local text = string.trim(avi.l4.read())
avi.vs.log(text)
