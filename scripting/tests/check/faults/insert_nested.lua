avi.vs.table_insert("n", "all", tostring((avi.vs.table_lookup("n", "all", 0) or 0) + 1))
