avi.vs.table_refresh()
