local ftp = require "Default-FTP"
avi.vs.log(ftp)
