"""Which IRIs and which statements about literals need no parser, since a regular expression vouches for them.

A part of RFC 3987 that holds nearly every IRI of a dump; whatever does not match is not thereby wrong.
"""

from __future__ import annotations

_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]*:"
_HOST = r"[A-Za-z0-9.\-_~]*(?::[0-9]*)?"
# of the planes beyond the first, none: their ends are not characters
_CHARACTER = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@\x{A0}-\x{D7FF}\x{F900}-\x{FDCF}\x{FDF0}-\x{FFEF}]|%[0-9A-Fa-f]{2})"
_PATH = rf"(?:{_CHARACTER}|/)*"
_QUERY = rf"(?:{_CHARACTER}|[/?])*"
_HIERARCHY = rf"(?://{_HOST}(?:/{_PATH})?|/(?:{_CHARACTER}{_PATH})?|(?:{_CHARACTER}{_PATH})?)"

IRI = rf"{_SCHEME}{_HIERARCHY}(?:\?{_QUERY})?(?:#{_QUERY})?"
_TEXT = r"""(?:[^"\\\r]|\\[tbnrf"'\\])*"""
_TYPE_OR_LANGUAGE = rf"(?:@[a-z]{{2,3}}(?:-[A-Z]{{2}})?|\^\^<{IRI}>)?"
_OF_A_LITERAL = rf'<{IRI}> <{IRI}> "{_TEXT}"{_TYPE_OR_LANGUAGE}'
LITERAL_TRIPLE = rf"{_OF_A_LITERAL} \."
LITERAL_QUAD = rf"{_OF_A_LITERAL}(?: <{IRI}>)? \."
