avi.l4.collect("twenty")
