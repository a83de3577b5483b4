"""`oarlock-fleet` and its commands."""
