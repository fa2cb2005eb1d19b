"""Hypothesis strategies that several tests share."""

import numpy as np
from hypothesis import strategies as st

times_s = st.floats(1e-7, 1e2)


def time_lists(minimum: int = 1, maximum: int = 40):
    """Measured times, as arrays."""
    return st.lists(times_s, min_size=minimum, max_size=maximum).map(np.array)


def paired_times(minimum: int = 1, maximum: int = 40):
    """(reference, candidate) times of as many blocks, as arrays."""
    pairs = st.lists(st.tuples(times_s, times_s), min_size=minimum, max_size=maximum)
    return pairs.map(lambda rows: (np.array([row[0] for row in rows]), np.array([row[1] for row in rows])))


fps_by_batch = st.dictionaries(st.integers(1, 512), st.floats(1e-2, 1e6), min_size=1, max_size=8)
