"""Oracles of ``oarlock.native.atoms``: `neighbours`, `edges`, `radial`."""
