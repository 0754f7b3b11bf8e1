avi.pool.select("main")
