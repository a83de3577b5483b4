"""A GGUF file in llama.cpp, served to an experiment.

Runs in the peer's own environment, which has llama-cpp-python and NumPy and nothing of ours.
"""

import ctypes
import resource
import time

import llama_cpp as library
import numpy as np

_state: dict = {}


def load(*, path, threads, context):
    """Open a file; what is open already is closed.

    Args:
        threads: of all operators.
        context: positions that the cache of keys and values holds.
    """
    close()
    library.llama_backend_init()
    quiet = library.llama_log_callback(lambda level, text, data: None)
    library.llama_log_set(quiet, ctypes.c_void_p(0))
    model = library.llama_model_load_from_file(path.encode(), library.llama_model_default_params())
    if not model:
        raise ValueError(f"llama.cpp does not load {path}")
    parameters = library.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = context
    parameters.n_threads = parameters.n_threads_batch = threads
    run = library.llama_init_from_model(model, parameters)
    if not run:
        raise ValueError(f"llama.cpp has no context of {context} positions for {path}")
    vocabulary = library.llama_model_get_vocab(model)
    _state.update(quiet=quiet, model=model, run=run, context=context, vocabulary=vocabulary)
    return {
        "library": f"llama.cpp of llama-cpp-python {library.__version__}",
        "system": library.llama_print_system_info().decode(),
        "description": _description(model),
    }


def decode(*, tokens):
    """Feed tokens one by one, as generation does, from an empty cache; wall and CPU seconds."""
    _clear()
    ids = [(library.llama_token * 1)(token) for token in tokens]
    wall, cpu = time.perf_counter(), _cpu_seconds()
    for one in ids:
        if library.llama_decode(_state["run"], library.llama_batch_get_one(one, 1)):
            raise RuntimeError("llama_decode failed")
        library.llama_get_logits_ith(_state["run"], -1)
    return {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_seconds() - cpu}


def losses(*, tokens):
    """Nats of every token but the first of each text."""
    return [_losses(row) for row in tokens]


def tokenize(*, texts):
    """Ids of texts, without a token for the beginning."""
    found = []
    for text in texts:
        content = text.encode()
        room = (library.llama_token * (len(content) + 8))()
        count = library.llama_tokenize(
            _state["vocabulary"], content, len(content), room, len(room), False, False
        )
        found.append(list(room[:count]))
    return found


def close():
    """Free the model."""
    if _state:
        library.llama_free(_state["run"])
        library.llama_model_free(_state["model"])
        _state.clear()


def _losses(row):
    _clear()
    length, size = len(row) - 1, library.llama_vocab_n_tokens(_state["vocabulary"])
    batch = library.llama_batch_init(length, 0, 1)
    try:
        batch.n_tokens = length
        for i in range(length):
            batch.token[i], batch.pos[i], batch.logits[i] = row[i], i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        if library.llama_decode(_state["run"], batch):
            raise RuntimeError("llama_decode failed")
        logits = np.ctypeslib.as_array(library.llama_get_logits(_state["run"]), (length, size))
        logits = logits.astype(np.float64)
    finally:
        library.llama_batch_free(batch)
    logits -= logits.max(-1, keepdims=True)
    chosen = logits[np.arange(length), row[1:]]
    return (np.log(np.exp(logits).sum(-1)) - chosen).tolist()


def _clear():
    library.llama_memory_clear(library.llama_get_memory(_state["run"]), True)


def _description(model):
    room = ctypes.create_string_buffer(128)
    library.llama_model_desc(model, room, len(room))
    return room.value.decode()


def _cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
