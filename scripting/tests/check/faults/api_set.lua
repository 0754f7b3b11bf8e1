avi.vs.greeting = "hello"
