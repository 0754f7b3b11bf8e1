local POOL = "nowhere"
avi.pool.select(POOL)
