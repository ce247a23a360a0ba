"""Preferences on what the policy writes now: pairs of its own samples, of its and the reference's, of its and the data's."""
