avi.poolgroup.select("groups")
