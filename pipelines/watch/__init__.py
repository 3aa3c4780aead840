"""`hypercut watch`: a folder whose photos are restored as they appear."""
