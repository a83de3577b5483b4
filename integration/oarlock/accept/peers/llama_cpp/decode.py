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
        context: positions that the cache of keys and values holds, for one text.
    """
    close()
    library.llama_backend_init()
    quiet = library.llama_log_callback(lambda level, text, data: None)
    library.llama_log_set(quiet, ctypes.c_void_p(0))
    model = library.llama_model_load_from_file(path.encode(), library.llama_model_default_params())
    if not model:
        raise ValueError(f"llama.cpp does not load {path}")
    vocabulary = library.llama_model_get_vocab(model)
    _state.update(quiet=quiet, model=model, run=None, vocabulary=vocabulary, threads=threads)
    prepare(texts=1, positions=context)
    return {
        "library": f"llama.cpp of llama-cpp-python {library.__version__}",
        "system": library.llama_print_system_info().decode(),
        "description": _description(model),
    }


def prepare(*, texts, positions):
    """An empty cache for so many texts."""
    if _state["run"]:
        library.llama_free(_state["run"])
        _state["run"] = None
    parameters = library.llama_context_default_params()
    parameters.n_ctx, parameters.n_seq_max = texts * positions, texts
    parameters.n_batch = parameters.n_ubatch = min(texts * positions, 512)
    parameters.n_threads = parameters.n_threads_batch = _state["threads"]
    run = library.llama_init_from_model(_state["model"], parameters)
    if not run:
        raise ValueError(f"llama.cpp has no context for {texts} texts of {positions} positions")
    _state["run"] = run


def generate(*, prompts, new):
    """Continue all prompts by the most probable tokens; wall-clock seconds.

    Prompts are computed in batches of 512 tokens, then all texts go on together.

    Returns:
        first_s: until every text has its first token; steps_s: of each step from then on; tokens.
    """
    _clear()
    found = [[] for _ in prompts]
    batch = library.llama_batch_init(512, 0, 1)
    start = time.perf_counter()
    try:
        rows = [(s, i) for s, prompt in enumerate(prompts) for i in range(len(prompt))]
        for begin in range(0, len(rows), 512):
            part = rows[begin : begin + 512]
            given = [(s, i, prompts[s][i], i == len(prompts[s]) - 1) for s, i in part]
            for s, token in _step(batch, given):
                found[s].append(token)
        first_s = last = time.perf_counter()
        steps_s = []
        for step in range(new - 1):
            given = [(s, len(prompts[s]) + step, texts[-1], True) for s, texts in enumerate(found)]
            for s, token in _step(batch, given):
                found[s].append(token)
            now = time.perf_counter()
            steps_s.append(now - last)
            last = now
    finally:
        library.llama_batch_free(batch)
    return {
        "first_s": first_s - start,
        "steps_s": steps_s,
        "total_s": last - start,
        "tokens": found,
    }


def _step(batch, rows):
    """Compute (text, position, token, wanted); text and most probable token behind each wanted one."""
    batch.n_tokens = len(rows)
    for i, (text, position, token, wanted) in enumerate(rows):
        batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, text
    if library.llama_decode(_state["run"], batch):
        raise RuntimeError("llama_decode failed")
    size = library.llama_vocab_n_tokens(_state["vocabulary"])
    found = []
    for i, (text, _, _, wanted) in enumerate(rows):
        if wanted:
            logits = library.llama_get_logits_ith(_state["run"], i)
            found.append((text, int(np.ctypeslib.as_array(logits, (size,)).argmax())))
    return found


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
        if _state["run"]:
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
