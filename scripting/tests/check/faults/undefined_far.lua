avi.http.redirect("https://example.com/")
