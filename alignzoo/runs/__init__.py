"""One run: its folder, what is on the screen meanwhile, and what may be done with it afterwards."""
