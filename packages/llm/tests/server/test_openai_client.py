"""The official client against a real server."""

import base64
import json

import numpy as np
import openai
import pytest

MODEL = "fake/model"
HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def answer(server, index=0, prompt=None):
    """What the fake says to its last request."""
    from oarlock_fake_service import expected_text

    request = server.service.requests[-1] if prompt is None else prompt
    return expected_text(request, index)[: request.params.max_tokens]


def test_chat(server):
    reply = server.openai.chat.completions.create(model=MODEL, messages=HI, max_tokens=20, seed=3)
    assert reply.choices[0].message.content == answer(server)
    assert reply.choices[0].finish_reason == "length"
    request = server.service.requests[-1]
    assert request.params.seed == 3
    text = server.service.tokenizer.decode(request.prompt)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert reply.usage.prompt_tokens == len(request.prompt)
    assert reply.usage.completion_tokens == 20
    assert reply.usage.prompt_tokens_details.cached_tokens == len(request.prompt) // 2


def test_chat_stream(server):
    options = {"include_usage": True}
    chunks = list(
        server.openai.chat.completions.create(
            model=MODEL, messages=HI, max_tokens=30, n=2, stream=True, stream_options=options
        )
    )
    texts = ["", ""]
    for chunk in chunks[:-1]:
        assert chunk.usage is None
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [answer(server, 0), answer(server, 1)]
    assert texts[0] != texts[1]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 60
    reasons = [chunk.choices[0].finish_reason for chunk in chunks[:-1]]
    assert sorted(filter(None, reasons)) == ["length", "length"]


def test_chat_logprobs(server):
    reply = server.openai.chat.completions.create(
        model=MODEL, messages=HI, max_tokens=3, logprobs=True, top_logprobs=2
    )
    content = reply.choices[0].logprobs.content
    assert "".join(item.token for item in content) == reply.choices[0].message.content
    assert [len(item.top_logprobs) for item in content] == [2, 2, 2]
    assert content[0].logprob == -0.5 and content[0].bytes == list(content[0].token.encode())
    streamed = [
        item
        for chunk in server.openai.chat.completions.create(
            model=MODEL, messages=HI, max_tokens=3, logprobs=True, stream=True
        )
        for item in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert len(streamed) == 3 and streamed[0].top_logprobs == []


def test_tokens_that_are_parts_of_characters(serving):
    server = serving(reply=lambda request, index: "é")
    fields = {"logprobs": True, "top_logprobs": 0}
    reply = server.openai.chat.completions.create(model=MODEL, messages=HI, **fields)
    assert reply.choices[0].message.content == "é"
    first, second = reply.choices[0].logprobs.content
    assert (first.token, first.bytes) == (r"bytes:\xc3", [0xC3])
    assert (second.token, second.bytes) == (r"bytes:\xa9", [0xA9])


def test_completions_of_several_prompts(server):
    reply = server.openai.completions.create(
        model=MODEL, prompt=["one", "two"], n=2, max_tokens=8, seed=1
    )
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    one, two = server.service.requests[-2:]
    expected = [answer(server, index, prompt) for prompt in (one, two) for index in (0, 1)]
    assert [choice.text for choice in reply.choices] == expected
    assert reply.usage.completion_tokens == 32
    # the model's beginning, and the text as bytes
    assert one.prompt == (256, *b"one")


def test_completions_of_token_ids(server):
    reply = server.openai.completions.create(model=MODEL, prompt=[[1, 2], [3]], max_tokens=1)
    assert len(reply.choices) == 2
    assert [request.prompt for request in server.service.requests[-2:]] == [(1, 2), (3,)]
    server.openai.completions.create(model=MODEL, prompt=[7, 8], max_tokens=1)
    assert server.service.requests[-1].prompt == (7, 8)


def test_completions_stream_equals_whole(server):
    fields = {"model": MODEL, "prompt": ["a", "b", "c"], "max_tokens": 25, "seed": 5}
    whole = server.openai.completions.create(**fields)
    texts = ["", "", ""]
    for chunk in server.openai.completions.create(**fields, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]


def test_echo_scores_the_prompt(server):
    reply = server.openai.completions.create(
        model=MODEL, prompt="abc", echo=True, logprobs=1, max_tokens=0
    )
    choice = reply.choices[0]
    assert choice.text == "abc"
    # the beginning that the server put before the text is not shown, so all of it is scored
    assert choice.logprobs.tokens == ["a", "b", "c"]
    assert choice.logprobs.token_logprobs == [-0.5, -0.5, -0.5]
    assert choice.logprobs.text_offset == [0, 1, 2]
    reply = server.openai.completions.create(
        model=MODEL, prompt=[97, 98], echo=True, logprobs=0, max_tokens=1
    )
    choice = reply.choices[0]
    assert choice.text[:2] == "ab" and choice.logprobs.token_logprobs == [None, -0.5, -0.5]


def test_embeddings(server):
    plain = server.openai.embeddings.create(model=MODEL, input="abc", encoding_format="float")
    packed = server.openai.embeddings.create(model=MODEL, input=["abc", "d"])  # base64 by default
    assert np.allclose(plain.data[0].embedding, packed.data[0].embedding)
    assert len(packed.data) == 2 and packed.usage.prompt_tokens == 6
    raw = server.http.post(
        "/v1/embeddings", json={"model": MODEL, "input": [1, 2], "encoding_format": "base64"}
    ).json()
    assert np.frombuffer(base64.b64decode(raw["data"][0]["embedding"]), "<f4").shape == (8,)
    with pytest.raises(openai.BadRequestError, match="dimensions must be 8"):
        server.openai.embeddings.create(model=MODEL, input="abc", dimensions=4)


def test_models(server):
    assert [model.id for model in server.openai.models.list()] == [MODEL, "fake/adapter"]
    assert server.openai.models.retrieve("fake/adapter").parent == MODEL
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        server.openai.models.retrieve("other")


def test_adapter(server):
    server.openai.chat.completions.create(model="fake/adapter", messages=HI, max_tokens=1)
    assert server.service.requests[-1].adapter == "fake/adapter"


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, ("json_schema", '{"type":"object"}')),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "array"}},
                }
            },
            ("json_schema", '{"type":"array"}'),
        ),
        ({"extra_body": {"guided_regex": "a+"}}, ("regex", "a+")),
        ({"extra_body": {"guided_choice": ["a.", "b"]}}, ("regex", r"(?:a\.)|(?:b)")),
        ({"extra_body": {"guided_grammar": 'start: "a"'}}, ("grammar", 'start: "a"')),
        ({"extra_body": {"guided_json": '{"type": "null"}'}}, ("json_schema", '{"type":"null"}')),
        ({"extra_body": {"structured_outputs": {"regex": "b"}}}, ("regex", "b")),
    ],
)
def test_constraints(server, fields, expected):
    server.openai.chat.completions.create(model=MODEL, messages=HI, max_tokens=1, **fields)
    found = server.service.requests[-1].params.constraint
    assert (found and (found.kind, found.source)) == expected


def test_every_sampling_field_reaches_the_engine(server):
    server.openai.chat.completions.create(
        model=MODEL,
        messages=HI,
        max_completion_tokens=4,
        temperature=0.5,
        top_p=0.9,
        n=2,
        seed=-1,
        stop=["x y"],
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"5": 1},
        extra_body={
            "top_k": 7,
            "min_p": 0.1,
            "repetition_penalty": 1.5,
            "stop_token_ids": [9],
            "ignore_eos": True,
            "priority": -3,
        },
    )
    request = server.service.requests[-1]
    params = request.params
    assert request.priority == -3
    assert (params.max_tokens, params.temperature, params.top_p, params.n) == (4, 0.5, 0.9, 2)
    assert (params.seed, params.stop, params.logit_bias) == ((1 << 63) - 1, ("x y",), {5: 1})
    assert (params.presence_penalty, params.frequency_penalty) == (0.5, -0.5)
    assert (params.top_k, params.min_p, params.repetition_penalty) == (7, 0.1, 1.5)
    assert params.stop_token_ids == (9,) and params.ignore_eos


def test_tool_call_and_its_answer(serving):
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call>'
    server = serving(reply=lambda request, index: "Let me see.\n" + call)
    fields = {"model": MODEL, "messages": HI, "tools": [WEATHER]}
    reply = server.openai.chat.completions.create(**fields).choices[0]
    assert reply.finish_reason == "tool_calls" and reply.message.content == "Let me see.\n"
    (found,) = reply.message.tool_calls
    assert found.function.name == "weather"
    assert json.loads(found.function.arguments) == {"city": "北京"}
    assert '"name": "weather"' in server.service.tokenizer.decode(
        server.service.requests[-1].prompt
    )

    pieces, names, ids, content = "", [], [], ""
    for chunk in server.openai.chat.completions.create(**fields, stream=True):
        delta = chunk.choices[0].delta
        content += delta.content or ""
        for piece in delta.tool_calls or []:
            pieces += piece.function.arguments or ""
            names += [piece.function.name] if piece.function.name else []
            ids += [piece.id] if piece.id else []
    assert (content, names, json.loads(pieces)) == ("Let me see.\n", ["weather"], {"city": "北京"})
    assert len(ids) == 1 and chunk.choices[0].finish_reason == "tool_calls"

    result = {"role": "tool", "tool_call_id": found.id, "content": "sunny"}
    server.openai.chat.completions.create(
        model=MODEL,
        messages=[*HI, reply.message.model_dump(exclude_none=True), result],
        max_tokens=1,
    )
    text = server.service.tokenizer.decode(server.service.requests[-1].prompt)
    assert '"arguments": {"city": "北京"}' in text and "<|im_start|>tool\nsunny" in text


def test_tool_choice(serving):
    replies = {"named": '{"city": "Rome"}', "required": '[{"name": "weather", "arguments": {}}]'}
    server = serving(
        reply=lambda request, index: replies[
            "required" if '"array"' in request.params.constraint.source else "named"
        ]
    )
    fields = {"model": MODEL, "messages": HI, "tools": [WEATHER]}
    named = {"type": "function", "function": {"name": "weather"}}
    reply = server.openai.chat.completions.create(**fields, tool_choice=named).choices[0]
    assert reply.message.tool_calls[0].function.arguments == '{"city": "Rome"}'
    schema = json.loads(server.service.requests[-1].params.constraint.source)
    assert schema == WEATHER["function"]["parameters"]
    reply = server.openai.chat.completions.create(**fields, tool_choice="required").choices[0]
    assert reply.finish_reason == "tool_calls" and reply.message.content is None
    assert reply.message.tool_calls[0].function.arguments == "{}"


def test_error_of_the_engine(serving):
    server = serving(fail_after=3)
    with pytest.raises(openai.InternalServerError, match="the fake was told to"):
        server.openai.chat.completions.create(model=MODEL, messages=HI)
    text = ""
    with pytest.raises(openai.APIError, match="the fake was told to"):
        for chunk in server.openai.chat.completions.create(model=MODEL, messages=HI, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert len(text) == 3
