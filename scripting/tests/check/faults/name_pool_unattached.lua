avi.pool.select("unattached")
