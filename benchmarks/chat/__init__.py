"""A real chat model, from its folder to an aligned one: do six algorithms work at the first try, and as TRL's do?"""
