"""Tables of names, as data: newer families than those of `families`."""
