"""NumPy oracles of the kernels, as short as the formulas. Tests compare; nothing else uses them."""
