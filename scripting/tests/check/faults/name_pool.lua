avi.pool.select("mian")
