avi.poolgroup.select("group")
