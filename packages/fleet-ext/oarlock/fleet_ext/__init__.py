"""Distributed training on commodity networks and unreliable machines, for PaddlePaddle."""
