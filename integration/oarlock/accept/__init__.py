"""Reproduces the acceptance criteria of Oarlock, one command each."""
