"""Text generation in several libraries: the same tokens, one process each, times of every step.

arms          the libraries and formats of a comparison, and the files that they read
engine        our engine, served to an experiment
onnx_text     ONNX Runtime, served to an experiment
measured      what rounds of all arms give: speeds, latencies, intervals of their ratios
"""
