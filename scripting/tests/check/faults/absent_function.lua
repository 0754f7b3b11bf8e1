local f = loadstring("return 1")
avi.vs.log(f())
