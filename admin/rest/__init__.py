"""The admin plane over HTTP: each file has the routes of one noun."""
