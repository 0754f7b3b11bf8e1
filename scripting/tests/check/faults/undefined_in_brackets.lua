avi["vs"]["clientip"]()
