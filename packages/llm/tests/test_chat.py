"""Chat templates: equal to transformers' rendering, and bounded."""

import datetime
import json
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock.llm.tokenizers import chat, limits

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "parity/expected/chat.json").read_text(encoding="utf-8"))
USER = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("template", RECORDED)
@pytest.mark.parametrize("name", ["plain", "whole", "calls"])
def test_prompts_are_those_of_transformers(fixtures, template, name):
    source = (fixtures / "chat" / f"{template}.jinja").read_text(encoding="utf-8")
    chats = json.loads((fixtures / "chat" / "chats.json").read_text(encoding="utf-8"))
    options = dict(chats["chats"][name])
    options |= dict(now=datetime.datetime(*chats["now"]), bos_token="<s>", eos_token="</s>")
    expected = RECORDED[template][name]
    if expected is None:
        with pytest.raises(
            ValueError, match="does not render: roles must alternate user/assistant"
        ):
            chat.render(source, **options)
    else:
        assert chat.render(source, **options) == expected


def test_all_templates_are_recorded(fixtures):
    assert {path.stem for path in (fixtures / "chat").glob("*.jinja")} == set(RECORDED)


def test_what_a_template_gets():
    assert chat.render("{{ tools is none }} {{ documents is none }}", USER) == "True True"
    assert chat.render("{{ thinking }}{{ absent }}", USER, thinking=False) == "False"
    assert chat.render("{{ {'a': '<é>\\''} | tojson }}", []) == '{"a": "<é>\'"}'
    assert chat.render("{{ messages[0].content | upper ~ '!' ~ 1 }}", USER) == "HELLO!1"
    assert chat.render("{{ '%s-%d' % ('a', 3) }}{{ 'x{}'.format(2) }}", []) == "a-3x2"
    assert chat.render("{{ 'a-b'.replace('-', '+') }}{{ ', '.join(['a', 'b']) }}", []) == "a+ba, b"
    assert (
        chat.render("{{ ['a', 'b'] | join('/') }}{{ 'aaa' | replace('a', 'b', 2) }}", [])
        == "a/bbba"
    )
    assert chat.render("{% for x in range(9) %}{% if x > 2 %}{% break %}{% endif %}{{ loop.last }}{% endfor %}", []) == "False" * 3  # fmt: skip
    assert (
        chat.render("{{ [1, 2] + [3] }}{{ 'ab' * 2 }}{{ 2 ** 3 }}{{ 7 % 4 }}", [])
        == "[1, 2, 3]abab83"
    )
    assert chat.render("{{ strftime_now('%Y') }}", [], now=datetime.datetime(1999, 1, 1)) == "1999"
    assert chat.render("{{ strftime_now('%Y') }}", []).isdigit()


def test_a_rendered_prompt_becomes_special_tokens(fixtures):
    from oarlock.llm import loading

    text = loading.load(fixtures / "qwen2").text
    prompt = chat.render(text.chat_template, USER, **text.template_tokens)
    ids = text.encode(prompt, special=True)
    start, stop = (text.tokenizer.special_tokens[f"<|im_{x}|>"] for x in ("start", "end"))
    assert ids[0] == start and ids.count(start) == 2 and ids.count(stop) == 1
    assert text.tokenizer.decode(ids) == prompt


ATTACKS = {
    "private attributes": ("{{ ''.__class__.__mro__ }}", "unsafe|does not render"),
    "attributes by name": ("{{ ''|attr('__class__') }}", "No filter named 'attr'"),
    "attributes by index": ("{{ ()['__class__']['__bases__'][0].x }}", "does not render"),
    "attributes by format": ("{{ '{0.__class__.__mro__}'.format(1) }}", "does not render"),
    "attributes by map": ("{{ [1]|map(attribute='__class__')|first|join }}{{ [1]|map(attribute='__class__')|list|first.x }}", "of no use|does not render"),
    "globals of functions": ("{{ raise_exception.__globals__.sys }}", "unsafe|does not render"),
    "globals of macros": ("{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}", "does not render"),
    "frames of generators": ("{{ (messages|map('upper')).gi_frame.f_back }}", "does not render"),
    "changes of messages": ("{{ messages.append(1) }}", "unsafe"),
    "changes of a message": ("{{ messages[0].update({}) }}", "unsafe"),
    "other files": ("{% include '/etc/passwd' %}", "wants other templates"),
    "imports": ("{% from 'os' import path %}", "wants other templates"),
    "bases": ("{% extends 'base' %}", "wants other templates"),
    "endless loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "200000 steps"),
    "loops in loops": ("{% for a in range(999) if loop is defined or range(99999)|list|length %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps|characters"),
    "long ranges": ("{{ range(10 ** 6)|list }}", "does not render"),
    "recursive loops": ("{% for a in [[1]] recursive %}{{ loop(a) }}{% endfor %}", "recursive loop"),
    "recursive macros": ("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}", "does not render"),
    "macros that call twice": ("{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}", "steps"),
    "long output": ("{% for a in range(90000) %}{{ 'x' * 100 }}{% endfor %}", "4194304 characters"),
    "repetition": ("{{ 'a' * 10 ** 12 }}", "characters"),
    "repetition of lists": ("{{ [0] * 999999999 }}", "characters"),
    "doubling": ("{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}", "characters"),
    "doubling by ~": ("{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}", "characters"),
    "doubling by join": ("{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = [n.s, n.s]|join %}{% endfor %}", "characters"),
    "doubling by replace": ("{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s.replace('a', n.s) %}{% endfor %}", "characters"),
    "doubling by a filter": ("{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s|replace('a', n.s) %}{% endfor %}", "characters"),
    "doubling by blocks": ("{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set t %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = t %}{% endfor %}", "characters"),
    "doubling of lists": ("{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}", "characters"),
    "padding": ("{{ 'a'.ljust(10 ** 11) }}", "number beyond"),
    "indenting": ("{{ 'a\nb'|indent(10 ** 11) }}", "number beyond"),
    "wide formats": ("{{ '%999999999d' % 1 }}", "great width"),
    "wide formats by argument": ("{{ '%*d' % (99999999, 1) }}", "great width"),
    "wide format calls": ("{{ '{:999999999}'.format(1) }}", "great width"),
    "wide format calls by argument": ("{{ '{:{}}'.format(1, 10 ** 9) }}", "number beyond"),
    "great powers": ("{{ 10 ** 10 ** 10 }}", "does not render"),
    "great products": ("{% set n = namespace(s=3) %}{% for i in range(60) %}{% set n.s = n.s * n.s %}{% endfor %}", "256 bits"),
    "deep json": ("{{ {'a': 1}|tojson(indent=10 ** 9) }}", "number beyond"),
    "deep brackets": ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "of no use"),
    "no template": ("{% for %}", "of no use in line 1"),
    "no end": ("{{ 'a'", "of no use"),
    "long source": (" " * (1 << 19), "at most 262144 characters"),
    "division": ("{{ 1 / 0 }}", "ZeroDivisionError"),
    "missing": ("{{ messages[7].content.x }}", "does not render"),
    "own error": ("{{ raise_exception('no tools') }}", "does not render: no tools"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused_soon(name):
    template, message = ATTACKS[name]
    begin = time.process_time()
    with pytest.raises(ValueError, match=message):
        chat.render(template, USER)
    assert time.process_time() - begin < 5


def test_bad_messages_are_refused():
    for messages, message in (
        ("text", "messages must be several objects, got str"),
        ([{"content": "a"}], r"messages\[0\] must be an object with a role"),
        ([*USER, 3], r"messages\[1\] must be"),
    ):
        with pytest.raises(ValueError, match=message):
            chat.render("x", messages)
    with pytest.raises(ValueError, match="template must be a text"):
        chat.render(None, USER)


def test_messages_stay_as_they_are():
    messages = [{"role": "user", "content": ["a"]}]
    with pytest.raises(ValueError, match="unsafe"):
        chat.render("{{ messages[0].content.append('b') }}", messages)
    assert messages == [{"role": "user", "content": ["a"]}]


def test_threads_have_budgets_of_their_own():
    template = "{% for i in range(n) %}{% for j in range(1000) %}{% endfor %}{% endfor %}ok"
    found = {}

    def run(n):
        try:
            found[n] = chat.render(template, [], n=n)
        except ValueError as error:
            found[n] = str(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in (100, 150, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[100] == found[150] == "ok" and str(limits.MAX_STEPS) in found[300]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(["{{", "}}", "{%", "%}", "{#", "#}", " for x in messages", "endfor", "if", "endif", "x", ".role", "|tojson", "'", "-", "set ", "=", "(", ")", "[", "0", "]", "~", "macro m()", "endmacro", "generation", "endgeneration", "\n"]),  # fmt: skip
        max_size=14,
    )
)
def test_any_source_renders_or_is_refused(pieces):
    try:
        assert isinstance(chat.render(" ".join(pieces), USER), str)
    except ValueError as error:
        assert str(error)
