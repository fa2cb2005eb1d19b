"""Backend ``avr_plain``: see `optim.backends.avr`, which holds both."""

from optim.backends.avr import PLAIN as BACKEND

__all__ = ["BACKEND"]
