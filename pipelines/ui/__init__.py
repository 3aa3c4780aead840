"""`hypercut ui`: a page for people who would never open a terminal (extra `ui`)."""
