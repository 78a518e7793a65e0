"""What a server shows people, and its description for programs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from regraft.exports.page.frame import Answering, frame
from regraft.exports.seal import Seal
from regraft.report.html.markup import Html, html, join
from regraft.report.html.page import page
from regraft.report.html.tables import definitions
from regraft.serving.limits import Limits
from regraft.version import __version__

__all__ = ["docs_page", "openapi", "tryout_page"]

_ROUTES = {
    "/predict": ("post", "Name one image: its bytes as the body, or a form with one file."),
    "/predict/batch": ("post", "Name several images: a form (multipart/form-data) with a file for each."),
    "/healthz": ("get", "Say that the server runs, and which model."),
    "/metrics": ("get", "Counts for Prometheus."),
}
_PROBLEMS = {
    400: "The request is damaged or holds no image",
    401: "The token is missing or wrong",
    403: "The request comes from a page of others, or names another host",
    408: "The request was not complete in time",
    413: "The request, the image or the number of images is too large",
    415: "The type of the body is none of images",
    422: "The image cannot be read",
    429: "The server is busy; try again after `Retry-After`",
    503: "Too many connections, or the server stops",
    504: "The answer took too long",
}


def tryout_page(seal: Seal, title: str, outputs: Sequence[str]) -> Html:
    """Return the page at `/`: that of `regraft export --to html`, whose photos this server answers."""
    script = resources.files(__package__ or "regraft.serving").joinpath("online.js").read_text(encoding="utf-8")
    answering = Answering(
        script,
        promise="Photos go to the server that this page comes from, which keeps none.",
        ending="This page asks its own server alone.",
        policy="; connect-src 'self'",
    )
    return frame(seal, title, answering, outputs)


def docs_page(seal: Seal, title: str, limits: Limits) -> Html:
    """Return the page at `/docs`."""
    routes = definitions((f"{verb.upper()} {path}", told) for path, (verb, told) in _ROUTES.items())
    problems = definitions((str(status), told) for status, told in _PROBLEMS.items())
    bounds = {
        "bytes of a request": f"{limits.upload_bytes:,}",
        "pixels of an image": f"{limits.pixels:,}",
        "images of a batch": limits.images,
        "seconds for a request": f"{limits.seconds:g}",
    }
    parts = (
        html("<h2>Ask</h2><pre>curl --data-binary @photo.jpg http://HOST:PORT/predict\n{}</pre>{}", _MORE, routes),
        html("<h2>Limits</h2>{}", definitions(bounds.items())),
        html("<h2>What else it answers</h2><p>{}</p>{}", _TYPED, problems),
    )
    verdict = html('<p>Model: {}, {}. <a href="openapi.json">OpenAPI</a></p>', seal.architecture, seal.model_sha256)
    return page(title=f"{title}: API", name=title, verdict=verdict, sections=join(parts))


_MORE = "curl -F image=@a.jpg -F image=@b.jpg http://HOST:PORT/predict/batch"
_TYPED = 'JSON: {"error": {"type": ..., "message": ...}}. In a batch, such an image has its error in its own row.'


def openapi(seal: Seal, limits: Limits) -> dict[str, Any]:
    """Return the server's description in OpenAPI 3.1."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"image": {"type": "array", "items": binary["schema"], "maxItems": limits.images}},
            }
        }
    }
    error = {"description": "", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    problems = {str(status): {**error, "description": told} for status, told in _PROBLEMS.items()}
    row: dict[str, Any] = {"$ref": "#/components/schemas/Row"}
    batch = {"type": "object", "properties": {"model": {"type": "string"}, "results": {"type": "array", "items": row}}}
    bodies = {"/predict": {"image/*": binary, "application/octet-stream": binary, **form}, "/predict/batch": form}
    answers: dict[str, Any] = {"/predict": row, "/predict/batch": batch}
    paths: dict[str, Any] = {}
    for path, (verb, told) in _ROUTES.items():
        schema = answers.get(path, {"type": "object"})
        kind = "text/plain" if path == "/metrics" else "application/json"
        found = {"description": "The answer", "content": {kind: {"schema": schema} if path != "/metrics" else {}}}
        paths[path] = {verb: {"summary": told, "responses": {"200": found, **(problems if path in bodies else {})}}}
        if path in bodies:
            paths[path][verb]["requestBody"] = {"required": True, "content": bodies[path]}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"regraft: {seal.architecture}", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {"Row": _row(seal), "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


_ERROR = {
    "type": "object",
    "properties": {
        "error": {"type": "object", "properties": {"type": {"type": "string"}, "message": {"type": "string"}}}
    },
}


def _row(seal: Seal) -> dict[str, Any]:
    names = {name: {"type": "number"} for name in seal.class_names}
    listed = {"type": "array", "items": {"type": "string"}}
    if seal.output == "segmentation":
        told: dict[str, Any] = {
            "shares": {"type": "object", "properties": names},
            "confidence": {"type": "number"},
            "mask_png": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"},
        }
    else:
        told = {
            "prediction": {"type": ["string", "null"]},
            "probability": {"type": ["number", "null"]},
            "probabilities": {"type": "object", "properties": names},
            "labels": listed,
            "candidates": listed,
            "typicality": {"type": "number"},
        }
    return {"type": "object", "properties": {"model": {"type": "string"}, **told}}
