"""The API document as a page: made on the server, no script. Pure: document in, HTML out."""

from collections.abc import Mapping
from html import escape
from typing import Any

from tollgate.console.pages import page

_REFERENCE = "#/components/schemas/"
_DEPTH_MAX = 6


def docs_page(document: Mapping[str, Any]) -> str:
    """Every operation by tag, each one to be opened; then the schemas that they refer to."""
    tags: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            shown = _operation(method, path, operation)
            tags.setdefault(operation["tags"][0], []).append(shown)
    names = sorted(tags)
    links = "".join(
        f'<li><a href="#{_anchor("tag", t)}">{escape(t)}</a></li>' for t in [*names, "Schemas"]
    )
    sections = "".join(
        f'<h2 id="{_anchor("tag", tag)}">{escape(tag)}</h2>{"".join(tags[tag])}' for tag in names
    )
    schemas = "".join(
        f'<h3 id="{_anchor("schema", name)}">{escape(name)}</h3>{_schema_body(schema)}'
        for name, schema in document["components"]["schemas"].items()
    )
    info = document["info"]
    about = "".join(f"<p>{_prose(t)}</p>" for t in info.get("description", "").split("\n\n"))
    body = (
        f"<h1>{escape(info['title'])} API</h1>{about}"
        '<p>For tools: <a href="/api/openapi.json">/api/openapi.json</a>.</p>'
        f'<ul class="tags" aria-label="Sections">{links}</ul>{sections}'
        f'<h2 id="{_anchor("tag", "Schemas")}">Schemas</h2>{schemas}'
    )
    return page(f"{info['title']} API", body)


def _anchor(kind: str, name: str) -> str:
    return escape(f"{kind}-" + "".join(c if c.isalnum() else "-" for c in name))


def _prose(text: str) -> str:
    """Plain text whose `code` is marked."""
    parts = escape(text.strip()).split("`")
    return "".join(
        f'<code class="inline">{part}</code>' if at % 2 else part for at, part in enumerate(parts)
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    paragraphs = operation.get("description", "").split("\n\n")
    about = "".join(f"<p>{_prose(text)}</p>" for text in paragraphs if text.strip())
    parameters = _parameters(operation.get("parameters", ()))
    body = _content("Body", operation.get("requestBody", {}).get("content", {}))
    answers = "".join(_answer(s, a) for s, a in operation["responses"].items())
    anchor = _anchor("operation", operation["operationId"])
    return (
        f'<details class="operation" id="{anchor}"><summary>'
        f'<span class="method {escape(method)}">{escape(method.upper())}</span>'
        f'<span class="path">{escape(path)}</span>'
        f'<span class="soft">{escape(operation["summary"])}</span></summary>'
        f'<div class="body">{about}{parameters}{body}'
        f'<h3>Answers</h3><div class="scroll"><table><thead><tr><th scope="col">Status</th>'
        f'<th scope="col">Meaning</th><th scope="col">Body</th></tr></thead>'
        f"<tbody>{answers}</tbody></table></div></div></details>"
    )


def _parameters(parameters: Any) -> str:
    if not parameters:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(p['name'])}</code>{_required(p.get('required', False))}</td>"
        f"<td>{escape(p['in'])}</td><td>{_type(p['schema'])}</td>"
        f"<td>{_prose(p.get('description', ''))}</td></tr>"
        for p in parameters
    )
    return (
        '<h3>Parameters</h3><div class="scroll"><table><thead><tr><th scope="col">Name</th>'
        '<th scope="col">In</th><th scope="col">Type</th><th scope="col">Meaning</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _content(title: str, content: Mapping[str, Any]) -> str:
    if not content:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(media)}</code></td><td>{_type(each.get('schema', {}))}</td></tr>"
        for media, each in content.items()
    )
    return (
        f'<h3>{escape(title)}</h3><div class="scroll"><table><thead><tr>'
        '<th scope="col">Media type</th><th scope="col">Type</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _answer(status: str, answer: Mapping[str, Any]) -> str:
    bodies = "<br>".join(
        f"<code>{escape(media)}</code> {_type(each.get('schema', {}))}"
        for media, each in answer.get("content", {}).items()
    )
    return (
        f"<tr><td>{escape(status)}</td><td>{_prose(answer['description'])}</td>"
        f"<td>{bodies}</td></tr>"
    )


def _schema_body(schema: Mapping[str, Any]) -> str:
    about = "".join(f"<p>{_prose(t)}</p>" for t in schema.get("description", "").split("\n\n") if t)
    members: Mapping[str, Any] = schema.get("properties", {})
    if not members:
        return f"{about}<p>{_type(schema)}</p>"
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{_required(name in required)}</td>"
        f"<td>{_type(member)}</td><td>{_prose(member.get('description', ''))}</td></tr>"
        for name, member in members.items()
    )
    return (
        f'{about}<div class="scroll"><table><thead><tr><th scope="col">Member</th>'
        '<th scope="col">Type</th><th scope="col">Meaning</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _required(required: bool) -> str:
    return '<span class="required">required</span>' if required else ""


def _type(schema: Mapping[str, Any], depth: int = 0) -> str:
    """A type in words, references as links."""
    if depth > _DEPTH_MAX:
        return "…"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REFERENCE)
        return f'<a href="#{_anchor("schema", name)}">{escape(name)}</a>'
    for members in (schema.get("anyOf"), schema.get("oneOf")):
        if members:
            return " or ".join(_type(each, depth + 1) for each in members)
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if "enum" in schema:
        return " ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    kind = schema.get("type", "any value")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}), depth + 1)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'], depth + 1)}"
    return escape(f"{kind}{_bounds(schema)}")


def _bounds(schema: Mapping[str, Any]) -> str:
    found = [str(schema["format"])] if "format" in schema else []
    words = {
        "minimum": "at least",
        "maximum": "at most",
        "minLength": "length at least",
        "maxLength": "length at most",
    }
    found += [f"{text} {schema[name]}" for name, text in words.items() if name in schema]
    if schema.get("default") is not None:
        found.append(f"default {schema['default']}")
    return f" ({', '.join(found)})" if found else ""
