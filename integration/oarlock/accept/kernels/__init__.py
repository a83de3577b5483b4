"""Workers of experiments about single kernels."""
