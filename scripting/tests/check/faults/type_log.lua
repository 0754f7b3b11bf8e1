avi.vs.log("list: ", { 1, 2 })
