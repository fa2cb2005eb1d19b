"""How a model is optimised: one plain module a method, and where it runs (``optim.backends``)."""
