avi.vs:log("hello")
