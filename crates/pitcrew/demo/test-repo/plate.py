"""What is known about a cooling plate without computing it."""

import math


def decay(diffusivity, time):
    """How much of the fundamental mode is left."""
    if time < 0:
        raise ValueError("time cannot be negative")
    return math.exp(-2.0 * math.pi**2 * diffusivity * time)


def half_life(diffusivity):
    """When half of it is left."""
    if diffusivity <= 0:
        raise ValueError("diffusivity must be positive")
    return math.log(2.0) / (2.0 * math.pi**2 * diffusivity)


def is_second_order(order, tolerance=0.2):
    """Whether errors shrink as a second-order solver's should."""
    return abs(order - 2.0) <= tolerance
