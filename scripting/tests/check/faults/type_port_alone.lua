avi.pool.select("main", nil, 80)
