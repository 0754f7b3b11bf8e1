avi.l4.client_ip()
