"""Language models trained by several ranks over networks that are slowed, for topic 2.4."""
