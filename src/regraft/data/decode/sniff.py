"""What a file is by its first bytes, whatever its name says, and what it is instead of an image."""

from __future__ import annotations

import re

__all__ = ["FORMATS", "HEIC", "RefusedError", "is_address", "known_format", "misses_its_end", "not_a_picture"]

HEIC = "HEIF"  # as its plug-in for Pillow calls it; read where that is installed
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/{1,2}[^/]", re.IGNORECASE)  # a path object makes one stroke of two
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")

_MAGIC = (
    ("JPEG", b"\xff\xd8\xff"),
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("GIF", b"GIF8"),
    ("TIFF", b"II*\x00"),
    ("TIFF", b"MM\x00*"),
    ("TIFF", b"II+\x00"),
    ("TIFF", b"MM\x00+"),
)
_BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)}
_STRANGERS = (
    (b"<!doctype html", "is an HTML page"),
    (b"<html", "is an HTML page"),
    (b"<head", "is an HTML page"),
    (b"<svg", "is an SVG drawing"),
    (b"<?xml", "is an XML text"),
    (b"{", "is a JSON text"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the image itself"),
    (b"%pdf", "is a PDF document"),
    (b"%!ps", "is a PostScript document"),
    (b"pk\x03\x04", "is a ZIP archive"),
    (b"\x00\x05\x16\x07", "is a macOS resource file, not an image"),
    (b"\x00\x05\x16\x00", "is a macOS resource file, not an image"),
)


class RefusedError(Exception):
    """The file may be whole, but its pixels have no right answer; the text says why."""


def is_address(text: str) -> bool:
    """Return whether a text is an address such as `https://...`, and not a path."""
    return _ADDRESS.match(text) is not None


def known_format(head: bytes) -> str | None:
    """Return the format that the first 32 bytes of a file announce, one of FORMATS or HEIC, or None."""
    for name, magic in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:2] == b"BM" and head[14:18] in _BMP_HEADERS:
        return "BMP"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "AVIF"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return HEIC
    return None


def not_a_picture(data: bytes) -> str:
    """Return why these bytes are no image, in words for people; empty when they may be one."""
    if not data:
        return "is empty"
    head = data[:512]
    if known_format(head):
        return ""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, reason in _STRANGERS:
        if text.startswith(start) or head.startswith(start):
            return reason
    if head[4:8] == b"ftyp":
        return "is a video, or an image in a format that regraft does not read"
    if not head.strip(b"\x00"):
        return "holds only zero bytes" if not data.strip(b"\x00") else "begins with zero bytes, as damaged files do"
    return f"is not an image in one of the formats {', '.join(FORMATS)}"


def misses_its_end(kind: str | None, data: bytes) -> bool:
    """Return whether a file of this format lacks the mark or the length that its last bytes would show."""
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b"\x00;"}.get(kind or "")
    return end is not None and end not in data[-4096:]
