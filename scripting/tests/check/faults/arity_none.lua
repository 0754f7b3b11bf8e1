avi.l4.collect()
