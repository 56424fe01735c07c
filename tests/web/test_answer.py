"""The headers without which no page leaves."""

from __future__ import annotations

from hbagent.web.answer import HTML, POLICY, Answer, head, sentence


def lines(answer: Answer, length: int | None = 0) -> dict[str, str]:
    raw = head(answer, keep_alive=True, length=length).decode()
    assert raw.endswith("\r\n\r\n")
    return dict(line.split(": ", 1) for line in raw.strip().split("\r\n")[1:])


def test_every_answer_carries_the_policy_and_no_cookie() -> None:
    for answer in (Answer(kind=HTML), sentence(404, "x"), Answer(status=304)):
        said = lines(answer)
        assert said["Content-Security-Policy"] == POLICY
        assert said["X-Content-Type-Options"] == "nosniff"
        assert said["Referrer-Policy"] == "no-referrer"
        assert "Set-Cookie" not in said
        assert "Access-Control-Allow-Origin" not in said


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules.pop("default-src") == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert {rules[name] for name in ("frame-ancestors", "base-uri", "form-action", "trusted-types")} == {"'none'"}
    assert "unsafe" not in POLICY
    assert "*" not in POLICY


def test_a_refused_method_says_which_are_not() -> None:
    assert lines(sentence(405, "x"))["Allow"] == "GET, HEAD"
    assert "Allow" not in lines(sentence(404, "x"))


def test_a_stream_has_no_length() -> None:
    assert lines(Answer(), 5)["Content-Length"] == "5"
    assert "Content-Length" not in lines(Answer(), None)
