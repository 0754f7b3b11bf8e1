local file = io.open("/tmp/log", "w")
avi.vs.log(file and "open" or "no file")
