"""Compressed models in the files of other inference libraries.

>>> from oarlock.core_opt.compress.export import gguf, llama
>>> gguf.write(llama.from_layer(model), "model.gguf", matrices="q4_0")
"""
