avi.pool.select("main", "10.0.0.1", 81)
