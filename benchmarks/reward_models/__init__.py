"""How good small reward models are on real preferences, beside a bag of words."""
