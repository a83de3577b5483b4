"""The chat page: its policy, and what it does in a real browser."""

import importlib.util
import re
from pathlib import Path

import pytest


def load_chromium():
    spec = importlib.util.spec_from_file_location(
        "oarlock_test_chromium", Path(__file__).with_name("chromium.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


chromium = load_chromium()
needs_browser = pytest.mark.skipif(
    chromium.find() is None, reason="no Chromium here (Debian: apt-get install chromium)"
)
NASTY = "<img src=x onerror=window.hacked=1> <b>bold</b>\n\n```html\n<script>window.hacked=1</script>\n```\n"
MARKDOWN = NASTY + "\n# Head\n- **one** `x<y`\n- two\n\n3. three\n\nlast *word*"


def test_policy_and_contents(serving):
    server = serving()
    response = server.http.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert re.findall(r"(?:src|href)=", response.text) == []
    assert "innerHTML" not in response.text and "http:" not in response.text
    assert "https:" not in response.text
    server = serving(config={"chat_page": False})
    assert server.http.get("/").status_code == 404


def test_model_names_cannot_break_the_page(serving, fake):
    import dataclasses

    from oarlock.llm.server import create_app

    service = fake.FakeService()
    service.about = dataclasses.replace(service.about, name='a"><script>x</script>&amp;')
    from starlette.testclient import TestClient

    text = TestClient(create_app(service)).get("/").text
    assert "<script>x" not in text and "a\\&quot;>&lt;script>" in text


@needs_browser
def test_conversation(serving):
    server = serving(reply=lambda request, index: MARKDOWN)
    with chromium.Browser() as page:
        page.go(server.url)
        assert page.run("document.activeElement.id") == "text"
        assert page.run("getComputedStyle(document.querySelector('#options')).display") == "none"
        page.type("Hello <i>there</i>")
        page.press("Enter", modifiers=8)
        page.type("second line")
        page.press("Enter")
        page.until("document.querySelector('#send').hidden === false && chat.turns.length === 2")
        says = "document.querySelector('.turn.assistant .says')"
        assert page.run(f"{says}.querySelector('pre code').textContent") == (
            "<script>window.hacked=1</script>"
        )
        assert page.run(f"{says}.querySelectorAll('img, b, script').length") == 0
        assert page.run(f"{says}.querySelectorAll('li').length") == 3
        assert page.run(f"{says}.querySelector('ol').start") == 3
        assert page.run(f"{says}.querySelector('strong').textContent") == "one"
        assert page.run(f"{says}.querySelector('h2').textContent") == "Head"
        assert page.run("window.hacked") is None
        user = page.run("document.querySelector('.turn.user .says').textContent")
        assert user == "Hello <i>there</i>\nsecond line"
        # the next request has the conversation, the system prompt and the settings
        page.run("document.querySelector('#toggle').click()")
        for field, value in (("system", "Be brief."), ("temperature", "0.5"), ("max-tokens", "9")):
            page.run(f"document.querySelector('#{field}').focus()")
            page.run(f"document.querySelector('#{field}').select()")
            page.type(value)
        page.run("document.querySelector('#text').focus()")
        page.type("again")
        page.press("Enter")
        page.until("chat.turns.length === 4 && running === null")
        request = server.service.requests[-1]
        assert (request.params.temperature, request.params.max_tokens) == (0.5, 9)
        text = server.service.tokenizer.decode(request.prompt)
        assert text.startswith("<|im_start|>system\nBe brief.") and MARKDOWN in text
        assert "9" in page.run("document.querySelector('#state').textContent")
        # kept in this tab, and cleared when asked
        page.go(server.url)
        page.until("document.querySelectorAll('.turn').length === 4")
        assert page.run("document.querySelector('#system').value") == "Be brief."
        page.run("document.querySelector('#clear').click()")
        assert page.run("document.querySelectorAll('.turn').length") == 0
        assert page.problems == []


@needs_browser
def test_stop_errors_keys_and_chinese_on_a_phone(serving, wait_until):
    server = serving(step_s=0.02, keys=["right"])
    with chromium.Browser(width=360, height=640, language="zh-CN", mobile=True, dark=True) as page:
        page.go(server.url)
        assert page.run("document.querySelector('#send').textContent") == "发送"
        assert page.run("document.documentElement.lang") == "zh"
        assert page.run("document.documentElement.scrollWidth") <= 360
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
        page.run("document.querySelector('#key').focus()")  # shown, as a key is needed
        page.type("wrong")
        page.run("document.querySelector('#text').focus()")
        page.type("你好")
        page.press("Enter")
        page.until("document.querySelector('.problem') !== null")
        assert "Authorization" in page.run("document.querySelector('.problem').textContent")
        page.run("document.querySelector('#key').select()")
        page.type("right")
        page.run("document.querySelector('#text').focus()")
        page.type("再来")
        page.press("Enter")
        page.until("chat.turns.length === 4 && chat.turns[3].content.length > 5")
        page.press("Escape")
        page.until("running === null")
        wait_until(lambda: not server.service.streams)
        assert server.service.cancelled == 1
        assert page.run("document.querySelector('#state').textContent") == "已停止"
        page.run("document.querySelector('#language').click()")
        assert page.run("document.querySelector('#send').textContent") == "Send"
        server.service.fail_after = 2
        page.run("document.querySelector('#text').focus()")
        page.type("fail")
        page.press("Enter")
        page.until("document.querySelectorAll('.problem').length === 2")
        assert "told to" in page.run(
            "[...document.querySelectorAll('.problem')].at(-1).textContent"
        )
        # the browser itself notes the refused key, and nothing else
        assert [text for text in page.problems if "401" not in text] == []
