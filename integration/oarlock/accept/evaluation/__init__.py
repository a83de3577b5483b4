"""Evaluations beside lm-eval, and of several models: what the experiments of topic 4.4 share."""
