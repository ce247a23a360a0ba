"""How long is waited for what must come."""

HANG = 900.0  # seconds: bounds a hang, and is no claim of speed, however busy the machine
