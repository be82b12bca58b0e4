"""The pages, as a browser and as a person's first minute find them."""

import re
from collections.abc import Callable
from html.parser import HTMLParser

import httpx
import pytest

from tests.support.server import Server, wait_until

pytestmark = pytest.mark.e2e


class Page(HTMLParser):
    """What a page refers to, what runs in it, and how its tags nest."""

    VOID = frozenset(("meta", "link", "img", "br"))

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.anchors: set[str] = set()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src") and value:
                self.references.append(value)
            if name == "id" and value:
                assert value not in self.anchors, f"#{value} stands twice"
                self.anchors.add(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_is_whole_and_asks_no_other_host(server: Server, path: str) -> None:
    answer = server.http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "unsafe" not in policy
    page = Page(answer.text)
    assert page.open == []
    assert "script" not in page.tags
    assert "style" not in page.tags  # the policy refuses both
    assert "style" not in page.attributes
    for reference in page.references:
        assert reference.startswith(("/", "#"))
        if reference.startswith("#"):
            assert reference[1:] in page.anchors
        else:
            assert server.http.get(reference).status_code == 200, reference


@pytest.mark.embedded_only("alone, the console knows no meters")
def test_the_landing_page_says_what_runs_here_and_how_to_begin(server: Server) -> None:
    text = "".join(Page(server.http.get("/").text).text)
    assert re.search(r"Version\s*\d+\.\d+\.\d+", text)
    assert re.search(r"Meters\s*\d+", text)
    assert f"curl -i {server.url}/api/v1/events" in text
    assert f"{server.url}/api/v1/meters/tokens_total/query" in text


def test_a_host_name_that_is_none_stays_out_of_the_commands(server: Server) -> None:
    answer = server.http.get("/", headers={"Host": 'x";rm -rf /;"<b>'})
    assert "rm -rf" not in answer.text


@pytest.mark.parametrize("path", ["/nothing", "/docs/nothing", "/docsx"])
def test_other_paths_get_the_404_problem(server: Server, path: str) -> None:
    answer = server.http.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 404


@pytest.mark.both_worlds
def test_pages_need_no_key_and_tell_nothing_of_a_namespace(
    new_server: Callable[..., Server],
) -> None:
    with new_server().start() as running:
        made = running.http.post(
            "/api/v1/access-keys", json={"name": "first", "scopes": ["operator"]}
        )
        assert made.status_code == 201, made.text
        assert running.http.get("/api/v1/meters").status_code == 401
        for path in ("/", "/docs", "/api/openapi.json", "/console.css", "/icon.svg"):
            assert running.http.get(path).status_code == 200
        # Other processes look for new keys every few seconds.
        wait_until(lambda: "TOLLGATE_KEY" in httpx.get(running.url).text, what="keys are asked for")
        text = httpx.get(running.url).text
        for reference in Page(text).references:
            assert running.http.get(reference).status_code == 200, reference
        assert ">Meters<" not in text.partition("Look around")[0]
