avi.vs.log('begun)
