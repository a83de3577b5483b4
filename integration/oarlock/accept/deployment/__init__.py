"""Exported models in other inference libraries: what they compute, and how fast."""
