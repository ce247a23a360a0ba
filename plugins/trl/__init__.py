"""TRL's own trainers, hosted: the same data, reward, reference and evaluation, another loop."""
