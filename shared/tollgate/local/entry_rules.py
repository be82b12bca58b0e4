"""HAProxy's configuration for the one entry port, made from the function table.

Written for HAProxy 2.8 (https://docs.haproxy.org/2.8/configuration.html). What it must hold:

- A request is never sent twice: HAProxy tries again only when a connection was refused, so nothing
  of the request was sent (its default, `retry-on conn-failure`).
- A function that is away is answered at once, 503 with a problem body of the wire version that was
  asked and Retry-After; so is one that ends or hangs while it has a request. (Where the client's
  connection had answers before, HAProxy closes it instead when a function ends: RFC 9112, 9.3.1.)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Template

from tollgate.platform.functions import ANY_SEGMENT, FUNCTIONS, Function, prefix_pattern

HEAD_BYTES_MAX = 64 << 10
"""As of the functions themselves."""

_RULES = Template("""\
global
  nbthread 1
  maxconn 4096
  hard-stop-after ${drain_seconds}s
  # A second entry on the port must fail, not share it.
  noreuseport
  # A head has to fit, and what is rewritten in it.
  tune.bufsize $head_bytes
  tune.maxrewrite 4096

defaults
  mode http
  option redispatch 1
  retries 1
  # Also how long it waits before it tries the same process again.
  timeout connect 250ms
  timeout queue 1s
  timeout http-request 30s
  timeout http-keep-alive 75s
  # Silence, not duration: a long upload or download goes on.
  timeout client 120s
  timeout server 120s
$problems

frontend entry
  bind $host:$port
  # What a problem body needs of its wire version.
  http-request set-var(txn.v3) bool(true) if { path,url_dec -m beg /api/v3/ }
  http-request set-var-fmt(txn.type) https://httpstatuses.com/503 if { var(txn.v3) -m bool }
  http-request set-var-fmt(txn.instance) kong:trace:%[uuid] if { var(txn.v3) -m bool }
  http-request set-var-fmt(txn.type) about:blank if !{ var(txn.v3) -m bool }
  http-request set-var-fmt(txn.instance) urn:request:%[uuid] if !{ var(txn.v3) -m bool }
  http-request set-var-fmt(txn.more) ',"extensions":{"code":"transient"}' \
if !{ var(txn.v3) -m bool }
  # A function that ended or hung is as away as one that was never there.
  http-after-response set-status 503 reason "Service Unavailable" if { status 502 504 }

  http-request return status 200 content-type "$text" string "ok\\n" if { path $healthy }
$readiness
  http-request return status 200 content-type "$text" string "ready\\n" if { path $ready }
  http-request use-service prometheus-exporter if { path /metrics }

  # Nobody in front of this port is trusted with what it says of others.
  http-request del-header forwarded
  http-request set-header x-forwarded-for %[src]
  http-request set-header x-forwarded-proto http
  http-request set-header x-forwarded-host %[req.hdr(host)]
$routes
""")
_PROBLEM = Template("""\
  http-error status $status content-type application/problem+json \
hdr retry-after 1 hdr cache-control no-store lf-string \
'{"type":"%[var(txn.type)]","title":"Service Unavailable","status":503,\
"detail":"$detail; send it again","instance":"%[var(txn.instance)]"%[var(txn.more)]}'""")
_UNREADY = Template(
    '  http-request return status 503 content-type "$text" string "$name: not there\\n" '
    "if { path $ready } !{ nbsrv($name) ge 1 }"
)
_BACKEND = Template("""
backend $name
  balance roundrobin
  option httpchk GET /readyz
  # A refused connection is enough to know that it is away, one good answer that it is back.
  default-server check inter 1s fastinter 200ms downinter 200ms rise 1 fall 2 \
observe layer4 error-limit 1 on-error mark-down
$servers
""")
_METRICS_BACKEND = Template("""
backend metrics-$name
  http-request set-path /metrics
  server $name 127.0.0.1:$port
""")
_WORDS = {
    "text": "text/plain; charset=utf-8",
    "healthy": "/healthz /_/health",
    "ready": "/readyz /_/ready",
}
_PROBLEMS = {
    502: "the function ended while it had the request: what became of it is unknown",
    503: "no process of this function takes requests now: nothing of it was done",
    504: "the function did not answer in time: what became of it is unknown",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One process of a function.

    Attributes:
        name: unique; its figures are at `/metrics/<name>`.
        port: on loopback.
    """

    name: str
    port: int


def entry_rules(
    host: str, port: int, upstreams: Mapping[str, Sequence[Upstream]], drain_seconds: int
) -> str:
    """The configuration file.

    Args:
        host: address to listen on.
        port: TCP port to listen on.
        upstreams: processes by function; requests take turns among those that are ready.
        drain_seconds: how long requests may go on once it is told to end.
    """
    functions = [function for function in FUNCTIONS if function.name in upstreams]
    every = [upstream for of_one in upstreams.values() for upstream in of_one]
    routes = [f"  use_backend metrics-{u.name} if {{ path /metrics/{u.name} }}" for u in every]
    routes += [f"  use_backend {name} if {rule}" for name, rule in routing_rules(functions)]
    # It knows the whole table, and says that nothing answers.
    routes.append(f"  default_backend {functions[-1].name}")
    text = _RULES.substitute(
        _WORDS,
        host=host,
        port=port,
        drain_seconds=drain_seconds,
        head_bytes=HEAD_BYTES_MAX + 4096,
        problems=_lines(_PROBLEM.substitute(status=s, detail=d) for s, d in _PROBLEMS.items()),
        readiness=_lines(_UNREADY.substitute(_WORDS, name=name) for name in upstreams),
        routes=_lines(routes),
    )
    for name, of_one in upstreams.items():
        servers = _lines(f"  server {u.name} 127.0.0.1:{u.port}" for u in of_one)
        text += _BACKEND.substitute(name=name, servers=servers)
    return text + "".join(_METRICS_BACKEND.substitute(name=u.name, port=u.port) for u in every)


def routing_rules(functions: Iterable[Function]) -> list[tuple[str, str]]:
    """Function and condition; the first that holds wins. The same as `function_for`."""
    routes = [(method, prefix, f) for f in functions for method, prefix in f.routes]
    routes.sort(key=lambda route: (len(route[1]), route[0] != "*"), reverse=True)
    rules: list[tuple[str, str]] = []
    for method, prefix, function in routes:
        if ANY_SEGMENT in prefix:
            rules.append((function.name, f"{{ path -m reg {prefix_pattern(prefix)} }}"))
            continue
        methods = {"*": "", "GET": " { method GET HEAD }"}.get(method, f" {{ method {method} }}")
        rules.append((function.name, f"{{ path,url_dec -m str {prefix} }}{methods}"))
        if method == "*" or prefix == "/":
            inside = prefix if prefix.endswith("/") else prefix + "/"
            rules.append((function.name, f"{{ path,url_dec -m beg {inside} }}{methods}"))
    return rules


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)
