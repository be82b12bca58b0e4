"""The landing page and the frame that all pages share. Pure: facts in, HTML out."""

from dataclasses import dataclass
from html import escape

from tollgate import __version__
from tollgate.platform.access import DEFAULT_NAMESPACE

_FRAME = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/console.css">
</head>
<body>
<header class="top"><div>
<a class="name" href="/"><img src="/icon.svg" alt="" width="26" height="26">Tollgate</a>
<nav aria-label="Pages"><a href="/docs">API</a><a href="/metrics">Metrics</a></nav>
</div></header>
<main>
{body}
</main>
<footer>Tollgate {version}, Apache-2.0. This page loads nothing from any other host.</footer>
</body>
</html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the landing page says.

    Attributes:
        url: where the reader reached it.
        open_to_all: no access key was ever made.
        meters: how many there are; None: not said.
    """

    url: str
    open_to_all: bool
    meters: int | None


def page(title: str, body: str) -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML of the main part.
    """
    return _FRAME.format(title=escape(title), body=body, version=escape(__version__))


def code(text: str, label: str) -> str:
    """A block of commands, readable by keyboard as it may scroll."""
    return f'<pre tabindex="0" aria-label="{escape(label)}"><code>{escape(text)}</code></pre>'


def landing_page(facts: Facts) -> str:
    """The page at `/`."""
    key = "" if facts.open_to_all else ' \\\n  -H "Authorization: Bearer $TOLLGATE_KEY"'
    send = f"""\
curl -i {facts.url}/api/v1/events{key} \\
  -H 'Content-Type: application/cloudevents+json' \\
  -d '{{"specversion":"1.0","id":"first-1","source":"quickstart","type":"prompt",
       "subject":"customer-1","data":{{"tokens":42,"model":"sonnet","type":"input"}}}}'"""
    make = f"""\
curl {facts.url}/api/v1/meters{key} \\
  -H 'Content-Type: application/json' \\
  -d '{{"slug":"tokens_total","eventType":"prompt","aggregation":"SUM",
       "valueProperty":"$.tokens","groupBy":{{"model":"$.model"}}}}'"""
    ask = f"curl '{facts.url}/api/v1/meters/tokens_total/query?groupBy=model'{key}"
    sample = f".venv/bin/tollgate demo --url {facts.url}"
    steps = (
        ("Send an event. The answer is 204 once it is on disk.", send, "Send an event"),
        ("See it counted: once, however often you send it.", ask, "Query a meter"),
        ("No such meter yet? Make it; it counts what came before, too.", make, "Make a meter"),
        ("Or send two months of an AI API's usage, and see what the meters say.", sample, "Demo"),
    )
    items = "\n".join(
        f"<li><p>{escape(text)}</p>{code(command, label)}</li>" for text, command, label in steps
    )
    data = _DATA if facts.open_to_all else ""
    body = _LANDING.format(facts=_facts(facts), key=_key(facts), steps=items, data=data)
    return page("Tollgate", body)


_LANDING = """\
<h1>Tollgate is running</h1>
<p class="lead">Usage events in over HTTP, exact quantities out.</p>
{facts}
<h2>The first minute</h2>
{key}
<ol class="steps">
{steps}
</ol>
<h2>Look around</h2>
<ul class="links">
<li><a href="/docs"><b>API</b><span>every operation, its parameters and answers</span></a></li>
<li><a href="/api/openapi.json"><b>OpenAPI 3.1</b><span>the same, for tools</span></a></li>
{data}<li><a href="/metrics"><b>Metrics</b><span>rates and lag, for Prometheus</span></a></li>
<li><a href="/readyz"><b>Readiness</b><span>whether it can serve now</span></a></li>
</ul>
"""


# A browser sends no access key: where one is needed, these would only lead to 401.
_DATA = """\
<li><a href="/api/v1/ledger"><b>Ledger</b><span>what became of every event</span></a></li>
<li><a href="/api/v1/meters"><b>Meters</b><span>what is counted</span></a></li>
"""


def _facts(facts: Facts) -> str:
    pairs = [("Version", __version__)]
    if facts.open_to_all:
        pairs.append(("Namespace", DEFAULT_NAMESPACE))
        pairs.append(("Access", "this machine only, no key"))
    else:
        pairs.append(("Namespace", "each key its own"))
        pairs.append(("Access", "by key"))
    if facts.meters is not None:
        pairs.append(("Meters", str(facts.meters)))
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in pairs)
    return f'<dl class="facts">{cells}</dl>'


def _key(facts: Facts) -> str:
    if facts.open_to_all:
        return ""
    return "<p>Put your access key into the environment first:</p>" + code(
        "export TOLLGATE_KEY=tg_...", "Access key"
    )
