"""The experiments: parametrized benchmark tests that double as correctness checks, and the harness that runs them."""
