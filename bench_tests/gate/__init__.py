"""The gate: has a change made a model slower, larger or worse? Against the history, or base against head."""
