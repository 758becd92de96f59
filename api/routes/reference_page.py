"""A page that lists the routes, without scripts: it also works on a network without access to the internet."""

from collections import defaultdict
from functools import cache
from html import escape

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "code{font-size:.95em}dt{margin-top:.8rem}dd{margin-left:1.5rem}"
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


@router.get("/docs", response_class=HTMLResponse)
def read_reference_page(request: Request) -> HTMLResponse:
    """Return the page."""
    return HTMLResponse(_page(request.app), headers={"Content-Security-Policy": POLICY})


@cache
def _page(app: FastAPI) -> str:
    document = app.openapi()
    texts = {tag["name"]: tag["description"] for tag in document["tags"]}
    by_tag = defaultdict[str, list[str]](list)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            call = f"<dt><code>{method.upper()} {escape(path)}</code></dt>"
            by_tag[operation["tags"][0]].append(f"{call}<dd>{escape(operation['description'])}</dd>")
    parts = (
        f"<h2>{escape(tag)}</h2><p>{escape(texts.get(tag, ''))}</p><dl>{''.join(calls)}</dl>"
        for tag, calls in by_tag.items()
    )
    intro = (
        f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>"
        f"<p>{escape(document['info']['description'])} Send the header <code>Authorization: Bearer KEY</code>. "
        'Fields, limits and examples: <a href="/openapi.json">openapi.json</a>.</p>'
    )
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}<title>CalibRL API</title></head><body>{intro}{"".join(parts)}'
