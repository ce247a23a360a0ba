"""Many runs, one comparison: algorithms x seeds, each in a process of its own, and the report on what they reached."""
