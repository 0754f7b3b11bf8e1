avi.l4.modify(0, 4, "GET ")
