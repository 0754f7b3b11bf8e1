avi.pools.select("main")
