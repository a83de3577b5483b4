"""Optimisers, low precision, compression and sparsity for PaddlePaddle."""
