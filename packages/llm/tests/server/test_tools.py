"""Calls in texts, however the texts are cut."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock.llm.server.errors import APIError
from oarlock.llm.server.tools import CallStart, Content, ToolPlan, detect_style
from oarlock.llm.server.tools.styles import reader

NAMES = frozenset({"f", "g"})
F1 = '{"name": "f", "arguments": {"a": [1, "}"], "b": "\\"{"}}'
ARGUMENTS = '{"a": [1, "}"], "b": "\\"{"}'
G = '{"arguments": {"x": null}, "name": "g"}'

CASES = [
    # style, text, content, calls
    ("hermes", "no call <tool", "no call <tool", []),
    ("hermes", f"<tool_call>\n{F1}\n</tool_call>", "", [("f", ARGUMENTS)]),
    (
        "hermes",
        f"a <tool_call>{F1}</tool_call>\n<tool_call>{G}</tool_call>",
        "a ",
        [("f", ARGUMENTS), ("g", '{"x": null}')],
    ),
    ("hermes", f"<tool_call>{F1}", "", [("f", ARGUMENTS)]),
    ("hermes", f"<tool_call>{F1}</tool_call> after", "after", [("f", ARGUMENTS)]),
    ("hermes", "<tool_call>what?</tool_call>", "<tool_call>what?</tool_call>", []),
    (
        "hermes",
        '<tool_call>{"name": "h", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "h", "arguments": {}}</tool_call>',
        [],
    ),
    ("hermes", '<tool_call>{"name": "f"}</tool_call>', "", [("f", "{}")]),
    ("hermes", '<tool_call>{"na', '<tool_call>{"na', []),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": ', "", [("f", '{"a": ')]),
    ("hermes", '<tool_call>{"arguments": 3, "name": "f"}', None, []),
    ("llama3", '{"name": "f", "parameters": {"a": 1}}', "", [("f", '{"a": 1}')]),
    ("llama3", '<|python_tag|>{"name": "f", "parameters": {}}', "", [("f", "{}")]),
    (
        "llama3",
        '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}',
        "",
        [("f", "{}"), ("g", "{}")],
    ),
    ("llama3", "plain {text}", "plain {text}", []),
    ("llama3", '{"answer": 3}', '{"answer": 3}', []),
    ("llama3", '{"name": "nobody", "parameters": {}}', '{"name": "nobody", "parameters": {}}', []),
    ("llama3", "<|python", "<|python", []),
    (
        "mistral",
        f"[TOOL_CALLS] [{F1}, {G}]",
        "",
        [("f", ARGUMENTS), ("g", '{"x": null}')],
    ),
    ("mistral", f"[{F1}]", "", [("f", ARGUMENTS)]),
    ("mistral", "[1, 2]", "[1, 2]", []),
    ("mistral", "[TOOL_CALLS", "[TOOL_CALLS", []),
]


def read(found, pieces):
    """Content and calls of a text that comes in pieces."""
    content, calls = "", []
    events = [event for piece in pieces for event in found.push(piece)] + found.finish()
    for event in events:
        if isinstance(event, Content):
            content += event.text
        elif isinstance(event, CallStart):
            assert event.index == len(calls)
            calls.append([event.name, ""])
        else:
            calls[event.index][1] += event.text
    return content, [tuple(call) for call in calls]


@pytest.mark.parametrize("style, text, content, calls", CASES)
def test_texts_whole_and_by_characters(style, text, content, calls):
    expected = (text if content is None else content, calls)
    assert read(reader(style, NAMES), [text]) == expected
    assert read(reader(style, NAMES), list(text)) == expected


@settings(deadline=None, max_examples=30)
@given(case=st.sampled_from(CASES), data=st.data())
def test_texts_cut_anywhere(case, data):
    style, text, content, calls = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]
    assert read(reader(style, NAMES), pieces) == (text if content is None else content, calls)


@settings(deadline=None, max_examples=30)
@given(
    style=st.sampled_from(["hermes", "llama3", "mistral"]),
    arguments=st.dictionaries(
        st.text(max_size=4),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=6),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    ),
    indent=st.sampled_from([None, 2]),
    ascii=st.booleans(),
)
def test_any_arguments_come_through(style, arguments, indent, ascii):
    key = "parameters" if style == "llama3" else "arguments"
    call = json.dumps({"name": "g", key: arguments}, indent=indent, ensure_ascii=ascii)
    text = {
        "hermes": f"<tool_call>{call}</tool_call>",
        "llama3": call,
        "mistral": f"[TOOL_CALLS][{call}]",
    }[style]
    content, ((name, found),) = read(reader(style, NAMES), list(text))
    assert (content, name, json.loads(found)) == ("", "g", arguments)


@settings(deadline=None, max_examples=60)
@given(
    style=st.sampled_from(["hermes", "llama3", "mistral"]),
    text=st.lists(
        st.sampled_from(
            [
                "<tool_call>",
                "</tool_call>",
                "[TOOL_CALLS]",
                "<|python_tag|>",
                F1,
                G,
                '{"name":',
                "{",
            ]
            + ["}", "[", "]", ",", ":", '"', '"f"', " ", "a", "\\", "1"]
        ),
        max_size=8,
    ).map("".join),
)
def test_how_a_text_is_cut_changes_nothing(style, text):
    whole = read(reader(style, NAMES), [text])
    assert read(reader(style, NAMES), list(text)) == whole
    if not whole[1]:
        assert whole[0] == text  # what is no call is the text, nothing lost


def test_styles_of_templates():
    assert detect_style(None) is None
    assert detect_style("{{ messages }}") is None
    assert detect_style("{% if tools %}<tool_call>{% endif %}") == "hermes"
    assert detect_style("{% if tools %}[TOOL_CALLS]{% endif %}") == "mistral"
    assert detect_style('{{ tools }} {"name": x, "parameters": y}') == "llama3"


def plan(tools, choice, **fields):
    from oarlock.llm.server.schemas.chat import ChatRequest
    from oarlock.llm.server.tools import plan_tools

    body = ChatRequest(
        model="m",
        messages=[{"role": "user", "content": "a"}],
        tools=[{"type": "function", "function": tool} for tool in tools],
        tool_choice=choice,
        **fields,
    )
    return plan_tools(body, style="hermes", template_has_tools=True)


def test_required_calls_fit_the_schemas_of_their_functions():
    jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="jsonschema_rs is not installed")
    point = {"$defs": {"n": {"type": "number"}}, "properties": {"x": {"$ref": "#/$defs/n"}}}
    word = {
        "definitions": {"n": {"type": "string"}},
        "properties": {"x": {"$ref": "#/definitions/n"}},
    }
    tools = [{"name": "f", "parameters": point}, {"name": "g", "parameters": word}, {"name": "h"}]
    found = plan(tools, "required")
    check = jsonschema_rs.validator_for(json.loads(found.constraint.source))

    def call(name, **arguments):
        return {"name": name, "arguments": arguments}

    assert check.is_valid([call("f", x=1.5), call("g", x="a")]) and check.is_valid([call("h")])
    for wrong in ([], [call("f", x="a")], [call("g", x=1)], [call("i")], [{"name": "f"}]):
        assert not check.is_valid(wrong)
    single = json.loads(plan(tools, "required", parallel_tool_calls=False).constraint.source)
    assert not jsonschema_rs.validator_for(single).is_valid([call("h"), call("h")])
    with pytest.raises(APIError, match="#/properties/x"):
        plan([{"name": "f", "parameters": {"$ref": "#/properties/x"}}], "required")


def test_none_shows_no_tools():
    assert plan([{"name": "f"}], "none") == ToolPlan()
    assert plan([{"name": "f"}], None).style == "hermes"
