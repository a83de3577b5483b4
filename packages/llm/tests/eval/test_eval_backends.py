"""Backends: encoding, scores against plain arithmetic, batch invariance, a real server, an engine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import paddle
import pytest

from oarlock.llm import tokenizers, weights
from oarlock.llm.engine.outputs import Completion, Result, TokenLogprob, Usage
from oarlock.llm.eval import (
    EndpointBackend,
    EngineBackend,
    FunctionBackend,
    LanguageModelBackend,
    NotSupported,
    Prompt,
)
from oarlock.llm.eval.backends import EndpointError
from oarlock.llm.eval.backends.encoding import Encoder


class Letters(tokenizers.Tokenizer):
    """Ids 1 to 26 for letters, 27 for a space, 28 for anything else; 0 begins a text."""

    vocab_size = 29

    def _encode(self, text):
        return [ord(c) - 96 if "a" <= c <= "z" else 27 if c == " " else 28 for c in text]

    def _bytes_of(self, token):
        return self._decode([token]).encode()

    def _decode(self, ids):
        return b"".join(map(self._bytes_of, ids)).decode()

    def _bytes_of(self, token):
        return bytes([96 + token if 1 <= token <= 26 else 32 if token == 27 else 35])


@pytest.fixture
def letters(small_model):
    def build(name="llama", **options):
        options = {"start": 0, "name": name} | options
        changes = {} if name in ("bloom", "rwkv4") else {"max_length": 64}
        return LanguageModelBackend(small_model(name, **changes), Letters(), **options)

    return build


def by_hand(model, tokens, scored):
    """Log-probability of the last tokens, by one forward pass of exactly them."""
    logits = model(paddle.to_tensor([tokens[:-1]]))[0].numpy().astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows = np.arange(len(tokens) - 1)[-scored:]
    return p[rows, tokens[-scored:]].sum()


@pytest.mark.parametrize("name", ["llama", "gpt", "bloom", "glm", "rwkv4", "moe"])
def test_scores_are_those_of_a_plain_pass(letters, name):
    backend = letters(name)
    [found] = backend.loglikelihood([("the cat", " sat")])
    whole = [0, *Letters().encode("the cat sat")]
    assert found.tokens == 4 and not found.truncated
    assert found.logprob == pytest.approx(by_hand(backend._model, whole, 4), abs=1e-4)
    [greedy] = backend.generate([Prompt(text="the cat", max_tokens=5)])
    [again] = backend.loglikelihood([("the cat", greedy.text)])
    assert again.greedy and greedy.tokens == 5 and greedy.finish == "length"


@pytest.mark.parametrize("name", ["llama", "rwkv4", "moe"])
def test_what_else_is_evaluated_changes_no_bit(letters, name):
    backend = letters(name)
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh "), n)) for n in rng.integers(1, 60, 40)]
    requests = [(word, " yes") for word in words] + [("", word + "x") for word in words]
    together = backend.loglikelihood(requests)
    alone = [backend.loglikelihood([request])[0] for request in requests]
    assert alone == together
    shuffled = rng.permutation(len(requests))
    again = backend.loglikelihood([requests[i] for i in shuffled])
    assert [again[np.flatnonzero(shuffled == i)[0]] for i in range(len(requests))] == together
    prompts = [Prompt(text="a" + word, max_tokens=4) for word in words[:6]]
    assert backend.generate(prompts) == [backend.generate([prompt])[0] for prompt in prompts]


def test_several_rows_a_pass_move_scores_by_rounding_only(letters):
    requests = [("ab" * n, " yes") for n in range(1, 20)]
    one, four = letters().loglikelihood(requests), letters(rows=4).loglikelihood(requests)
    assert [s.logprob for s in four] == pytest.approx([s.logprob for s in one], abs=1e-4)
    assert letters(rows=4).description["rows"] == 4  # and are not taken for the same


def test_real_scores_depend_on_nothing_else(shared_data):
    folder = shared_data("weights/stories260K")
    backend = LanguageModelBackend(
        weights.load_llama2c(folder / "stories260K.bin"),
        tokenizers.Llama2cTokenizer.from_file(folder / "tok512.bin"),
        name="stories260K",
        start=1,
    )
    requests = [
        ("Once upon a time, there was a little girl named", end) for end in (" Lily.", " Xq.")
    ]
    requests += [("Lily", " was happy. " * n) for n in range(1, 12)]
    together = backend.loglikelihood(requests)
    assert together == [backend.loglikelihood([request])[0] for request in requests]
    assert together[0].logprob > together[1].logprob + 5


def test_windows_score_each_token_once(letters):
    backend = letters()
    text = "a long text that does not fit " * 9
    rows = list(backend._encoder.windows(text))
    assert sum(row.scored for row in rows) == len(text)
    assert all(len(row.tokens) - 1 <= 64 for row in rows)
    seen = [t for row in rows for t in row.tokens[-row.scored :]]
    assert seen == Letters().encode(text)
    # the second window sees the last of the first, and scores what is new
    assert rows[1].tokens[0] == rows[0].tokens[-1]
    [found] = backend.loglikelihood_rolling([text])
    expected = sum(by_hand(backend._model, list(r.tokens), r.scored) for r in rows)
    assert found.logprob == pytest.approx(expected, abs=1e-3) and found.tokens == len(text)
    assert len(list(Encoder(Letters(), start=None, max_length=None).windows("abc"))[0].tokens) == 3


def test_encoding_is_that_of_lm_eval():
    encoder = Encoder(Letters(), start=0, max_length=8)
    row = encoder.pair("ab ", "c")  # the space belongs to the continuation
    assert (row.tokens, row.scored) == ((0, 1, 2, 27, 3), 2)
    row = encoder.pair("abcdefgh", "ij")
    assert (row.tokens, row.scored, row.truncated) == ((2, 3, 4, 5, 6, 7, 8, 9, 10), 2, True)
    assert encoder.pair("", "ab").scored == 2
    assert Encoder(Letters(), start=None, max_length=8).pair("", "ab").scored == 1
    assert encoder.prompt("abcdefgh", 3) == ((4, 5, 6, 7, 8), True)
    with pytest.raises(NotSupported, match="9 tokens, the model takes 8"):
        encoder.pair("a", "abcdefghi")
    with pytest.raises(NotSupported, match="8 new tokens"):
        encoder.prompt("a", 8)
    with pytest.raises(ValueError, match="no token of its own"):
        encoder.pair("a", "")
    with pytest.raises(ValueError, match="no token to score"):
        list(Encoder(Letters(), start=None, max_length=8).windows("a"))


def test_generation_stops_at_texts_and_at_the_end(letters):
    backend = letters()
    [free] = backend.generate([Prompt(text="the", max_tokens=12)])
    stop = free.text[3:5]
    [cut] = backend.generate([Prompt(text="the", max_tokens=12, stop=("QQ", stop))])
    assert (cut.text, cut.finish) == (free.text[: free.text.index(stop)], "stop")
    ending = letters(end=Letters().encode(free.text[2])[0])
    [ended] = ending.generate([Prompt(text="the", max_tokens=12)])
    assert (ended.text, ended.finish) == (free.text[: free.text.index(free.text[2])], "stop")


def test_the_model_is_left_as_it_was(letters):
    backend = letters()
    for training in (True, False):
        backend._model.train() if training else backend._model.eval()
        backend.loglikelihood([("a", "b")])
        backend.generate([Prompt(text="a", max_tokens=2)])
        assert backend._model.training == training


def test_misfits_are_refused(letters, small_model):
    with pytest.raises(ValueError, match="tokenizer has 29 tokens, the model 5"):
        LanguageModelBackend(small_model("llama", vocab_size=5), Letters(), name="m")
    with pytest.raises(ValueError, match="rows must be 1 or more"):
        letters(rows=0)
    with pytest.raises(ValueError, match="max_length must be 2 or more"):
        Encoder(Letters(), start=None, max_length=1)


def test_other_weights_are_another_backend(letters, small_model):
    first = letters().description
    changed = small_model("llama", max_length=64)
    head = changed.state_dict()["head.weight"]
    head.set_value(head.numpy() + np.float32(1e-3))
    second = LanguageModelBackend(changed, Letters(), name="llama", start=0).description
    assert {k for k in first if first[k] != second[k]} == {"weights"}


class PlainEngine:
    """Scores and generates one by one, as the engine's interface has it."""

    def __init__(self, model):
        self.model = model

    def score(self, prompts, *, last=None):
        if last is not None:
            return [row[-count:] for row, count in zip(self.score(prompts), last, strict=True)]
        out = []
        for tokens in prompts:
            logits = self.model(paddle.to_tensor([list(tokens[:-1])]))[0].numpy().astype(np.float64)
            p = logits - np.log(
                np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)
            )
            p -= logits.max(-1, keepdims=True)
            out.append(
                [
                    TokenLogprob(t, float(row[t]), ((int(row.argmax()), float(row.max())),))
                    for t, row in zip(tokens[1:], p)
                ]
            )
        return out

    def generate(self, prompts, params):
        out = []
        for tokens in prompts:
            row = self.model.generate(
                paddle.to_tensor([list(tokens)]), max_new_tokens=params.max_tokens
            )[0].numpy()
            new = tuple(int(t) for t in row[len(tokens) :])
            done = Completion(
                index=0, text=Letters().decode(new), tokens=new, finish_reason="length"
            )
            usage = Usage(prompt_tokens=len(tokens), completion_tokens=len(new))
            out.append(Result(request="r", prompt=tuple(tokens), completions=(done,), usage=usage))
        return out


def test_the_engine_is_asked_in_its_own_words(letters):
    plain = letters()
    engine = EngineBackend(
        PlainEngine(plain._model), Letters(), description={"model": "m"}, max_length=65, start=0
    )
    requests = [("the cat", " sat"), ("", "on"), ("x" * 80, " y")]
    for a, b in zip(engine.loglikelihood(requests), plain.loglikelihood(requests), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
        assert (a.greedy, a.tokens, a.truncated) == (b.greedy, b.tokens, b.truncated)
    text = "a long text that does not fit " * 4
    [a], [b] = engine.loglikelihood_rolling([text]), plain.loglikelihood_rolling([text])
    assert a.logprob == pytest.approx(b.logprob, abs=1e-3) and a.tokens == b.tokens
    prompts = [Prompt(text="the", max_tokens=4), Prompt(text="a", max_tokens=6, stop=("q",))]
    assert engine.generate(prompts) == plain.generate(prompts)
    with pytest.raises(ValueError, match="description must name the model"):
        EngineBackend(engine, Letters(), description={}, max_length=64)


def test_the_real_engine_scores_and_writes_alike(shared_data):
    from oarlock.llm.engine import LLM

    folder = shared_data("weights/stories260K")
    model = weights.load_llama2c(folder / "stories260K.bin")
    tokenizer = tokenizers.Llama2cTokenizer.from_file(folder / "tok512.bin")
    plain = LanguageModelBackend(model, tokenizer, name="s", start=1, end=2)
    engine = EngineBackend(
        LLM(model, tokenizer=tokenizer),
        tokenizer,
        description={"model": "s"},
        max_length=512,
        start=1,
    )
    requests = [("Once upon a time", " there was a cat."), ("", "Lily"), ("x " * 600, " y")]
    for a, b in zip(engine.loglikelihood(requests), plain.loglikelihood(requests), strict=True):
        assert a.tokens == b.tokens and a.truncated == b.truncated
        # the last one's context is one token shorter
        assert a.logprob == pytest.approx(b.logprob, abs=0.1 if a.truncated else 1e-3)
    [a], [b] = (one.loglikelihood_rolling(["Once upon a time. " * 99]) for one in (engine, plain))
    assert a.logprob == pytest.approx(b.logprob, rel=1e-2) and a.tokens == b.tokens
    prompts = [
        Prompt(text="Once upon a time", max_tokens=40),
        Prompt(text="Tom", max_tokens=60, stop=(".",)),
    ]
    for a, b in zip(engine.generate(prompts), plain.generate(prompts), strict=True):
        assert (a.text, a.finish) == (b.text, b.finish)


class Server(BaseHTTPRequestHandler):
    """Completions with echo, and chat, of a backend; ``fail`` answers come first."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body, self.headers.get("Authorization")))
        if self.server.fail:
            return self._send(self.server.fail.pop(0), {"error": {"message": "busy"}})
        if self.path.endswith("/chat/completions"):
            text = body["messages"][-1]["content"]
            choice = {"message": {"content": text.upper()}, "finish_reason": "stop"}
            return self._send(200, {"choices": [choice], "usage": {"completion_tokens": 3}})
        text = body["prompt"]
        if body.get("echo") and not self.server.mute:
            tokens = [0, *Letters().encode(text)]
            [scored] = PlainEngine(self.server.model).score([tokens])
            found = {
                "tokens": list(text),
                "token_logprobs": [one.logprob for one in scored],
                "top_logprobs": [{str(one.top[0][0]): one.top[0][1]} for one in scored],
                "text_offset": list(range(len(text))),
            }
            return self._send(200, {"choices": [{"text": text, "logprobs": found}]})
        choice = {"text": " and so on", "finish_reason": "length"}
        return self._send(200, {"choices": [choice], "usage": {"completion_tokens": 10}})

    def _send(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(small_model):
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as http:
        http.model, http.fail, http.seen, http.mute = (
            small_model("llama", max_length=64),
            [],
            [],
            False,
        )
        threading.Thread(target=http.serve_forever, daemon=True).start()
        http.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        yield http
        http.shutdown()


def test_a_server_that_echoes_scores_like_the_model_itself(server, letters):
    remote = EndpointBackend(server.url, "m", api_key="secret", concurrency=2)
    requests = [("the cat", " sat"), ("the", " dog ran")]
    for a, b in zip(remote.loglikelihood(requests), letters().loglikelihood(requests), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
        assert (a.tokens, a.greedy) == (b.tokens, b.greedy)
    assert server.seen[0][2] == "Bearer secret" and "secret" not in str(remote.description)
    [found] = remote.generate([Prompt(text="a", stop=("so",), max_tokens=10)])
    assert (found.text, found.finish, found.tokens) == (" and ", "stop", 10)
    remote.close()


def test_a_server_without_logprobs_refuses_with_the_reason(server):
    server.mute = True
    with pytest.raises(NotSupported, match="echoes the prompt"):
        EndpointBackend(server.url, "m").loglikelihood([("a", "b")])
    chat = EndpointBackend(server.url, "m", mode="chat", system="be brief")
    with pytest.raises(NotSupported, match="mode 'completions'"):
        chat.loglikelihood([("a", "b")])
    [found] = chat.generate([Prompt(text="hello")])
    assert (found.text, found.finish) == ("HELLO", "stop")
    assert [m["role"] for m in server.seen[-1][1]["messages"]] == ["system", "user"]


def test_busy_servers_are_asked_again_and_wrong_requests_are_not(server):
    remote = EndpointBackend(server.url, "m", wait_s=0.01, retries=2, concurrency=1)
    server.fail = [429, 503]
    assert remote.generate([Prompt(text="a")])[0].text == " and so on"
    server.fail = [500, 500, 500]
    with pytest.raises(EndpointError, match="status 500.*busy"):
        remote.generate([Prompt(text="a")])
    server.fail, before = [404], len(server.seen)
    with pytest.raises(EndpointError, match="status 404"):
        remote.generate([Prompt(text="a")])
    assert len(server.seen) == before + 1
    gone = EndpointBackend("http://127.0.0.1:9/v1", "m", retries=1, wait_s=0.01)
    with pytest.raises(EndpointError, match="Connect"):
        gone.generate([Prompt(text="a")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "telepathy"}, "mode must be"),
        ({"concurrency": 0}, "concurrency must be"),
        ({"system": "x"}, "system belongs to mode 'chat'"),
    ],
)
def test_endpoint_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        EndpointBackend("http://127.0.0.1:9/v1", "m", **options)


def test_functions_answer_what_they_were_given_for():
    writes = FunctionBackend(name="w", generate=lambda prompt: prompt.text + " one. two")
    assert writes.generate([Prompt(text="a", stop=(".",))])[0].text == "a one"
    with pytest.raises(NotSupported, match="only generates"):
        writes.loglikelihood([("a", "b")])
    scores = FunctionBackend(name="s", loglikelihood=lambda a, b: (-len(b), None))
    assert scores.loglikelihood_rolling(["abc"])[0].logprob == -3
    with pytest.raises(NotSupported, match="only scores"):
        scores.generate([Prompt(text="a")])
    with pytest.raises(ValueError, match="must be given, got neither"):
        FunctionBackend(name="n")
