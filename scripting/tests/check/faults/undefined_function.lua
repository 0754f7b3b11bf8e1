avi.pool.selct("main")
