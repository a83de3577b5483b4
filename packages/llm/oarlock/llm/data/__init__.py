"""Tokens on disk and batches of them.

>>> from oarlock.llm.data import BatchSampler, TokenFile, write_tokens
>>> write_tokens("train.tokens", ids, tokenizer="byte")
>>> tokens, targets = next(BatchSampler(TokenFile("train.tokens"), batch_size=8, length=128))
"""

from oarlock.llm.data.batches import BatchSampler, eval_batches, split
from oarlock.llm.data.token_file import TokenFile, write_tokens

__all__ = ["BatchSampler", "TokenFile", "eval_batches", "split", "write_tokens"]
