"""Fast kernels behind a C ABI, with a NumPy reference beside each."""
