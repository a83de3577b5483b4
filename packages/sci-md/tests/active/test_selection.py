"""The band."""

import numpy as np
import pytest

from oarlock.sci_md.active import Band, select


def test_select():
    deviations = [0.01, 0.1, 0.2, 0.3, np.inf, 0.05, np.nan, 0.04999]
    found = select(deviations, Band(low=0.05, high=0.25), most=5, seed=0)
    assert found.chosen.tolist() == [1, 2, 5]
    assert (found.accurate, found.candidates, found.failed, found.visited) == (2, 3, 3, 8)
    few = select(deviations, Band(low=0.05, high=0.25), most=2, seed=0)
    assert len(few.chosen) == 2 and set(few.chosen) < {1, 2, 5} and few.candidates == 3
    again = select(deviations, Band(low=0.05, high=0.25), most=2, seed=0)
    assert (few.chosen == again.chosen).all()


def test_refusals():
    with pytest.raises(ValueError, match="0 < low < high"):
        Band(low=0.3, high=0.2)
    with pytest.raises(ValueError, match="most=0"):
        select([0.1], Band(low=0.1, high=0.2), most=0, seed=0)
