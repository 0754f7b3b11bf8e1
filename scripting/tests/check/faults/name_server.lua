avi.pool.select("main", "10.0.0.7")
