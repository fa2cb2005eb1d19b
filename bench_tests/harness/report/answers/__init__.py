"""The questions a reader asks, answered from the records; and what to take for a stated need."""
