"""A page that names photos in a browser: the same one for a file that opens offline and for a server."""
