avi.pool.select(true)
