avi.l4.collect(70000)
