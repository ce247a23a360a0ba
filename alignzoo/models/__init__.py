"""Networks: how they are built, run, sampled from, and shown to algorithms by role."""
