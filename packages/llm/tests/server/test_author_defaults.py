"""What the server draws with where a request does not say."""

import pytest

ADVISED = {"temperature": 0.25, "top_k": 7, "repetition_penalty": 1.5, "max_tokens": 9}


@pytest.fixture
def advised(serving):
    running = serving()
    running.service.generation = ADVISED
    return running


def test_the_authors_defaults_are_used(advised):
    assert advised.chat().status_code == 200
    (request,) = advised.service.requests
    assert {name: getattr(request.params, name) for name in ADVISED} == ADVISED
    assert advised.complete().status_code == 200
    assert advised.service.requests[-1].params.max_tokens == 9


def test_a_request_has_the_last_word(advised):
    fields = {"temperature": 1.0, "top_k": -1, "repetition_penalty": 1.0, "max_tokens": 11}
    assert advised.chat(**fields).status_code == 200
    params = advised.service.requests[-1].params
    assert (params.temperature, params.top_k, params.repetition_penalty) == (1.0, None, 1.0)
    assert params.max_tokens == 11


def test_a_default_length_is_shortened_to_the_room_and_one_asked_for_is_refused(serving):
    running = serving(max_length=40)
    running.service.generation = {"max_tokens": 30}
    prompt = "x" * 29
    assert running.complete(prompt).status_code == 200
    assert running.service.requests[-1].params.max_tokens == 10
    assert running.complete(prompt, max_tokens=30).status_code == 400


def test_without_defaults_it_is_as_openai(server):
    assert server.complete().status_code == 200
    params = server.service.requests[-1].params
    assert (params.max_tokens, params.temperature, params.top_k) == (16, 1.0, None)
