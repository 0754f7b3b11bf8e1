avi.vs.table_insert("clients")
