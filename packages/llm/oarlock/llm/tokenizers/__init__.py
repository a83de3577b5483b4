"""Text to token ids and back, behind one small interface.

>>> from oarlock.llm import tokenizers
>>> tokenizer = tokenizers.BPETokenizer.train(texts, vocab_size=4096)
>>> tokenizer.decode(tokenizer.encode("秦川雄帝宅"))
'秦川雄帝宅'
"""

from oarlock.llm.tokenizers.base import Tokenizer
from oarlock.llm.tokenizers.bpe import BPETokenizer
from oarlock.llm.tokenizers.byte import ByteTokenizer
from oarlock.llm.tokenizers.detokenizer import Detokenizer
from oarlock.llm.tokenizers.llama2c import Llama2cTokenizer
from oarlock.llm.tokenizers.rwkv_world import RWKVWorldTokenizer
from oarlock.llm.tokenizers.sentence_piece import SentencePieceTokenizer

__all__ = [
    "BPETokenizer",
    "ByteTokenizer",
    "Detokenizer",
    "Llama2cTokenizer",
    "RWKVWorldTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
]
