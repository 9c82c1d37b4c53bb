"""A reference model of resources and patterns, written from spec/pattern.md.

Every pattern is read as an automaton over tokens: labels, an address, a port, slashes and
characters. Matching runs the automaton; covering searches the product of both automata and one
that knows what a resource is for a resource that the child takes and the parent does not. That
takes exponential time at worst, and follows nothing but the definition of containment.

One rule is approximated: of UTS #46 only the conditions on single labels that the standard
library can tell are checked, so a name with ``xn--`` may be accepted here and refused elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443", "ftp": "21"}
"""The schemes whose authority is a host, and their default ports."""

_ESCAPES = "%(?:2[023]|3[CEF]|5[BDE]|60|7[BCD])"
_PLAIN = r"[A-Za-z0-9\-._~!$&'()+,=:@]"
_CHAR = re.compile(f"{_PLAIN}|{_ESCAPES}|[^\\x00-\\x7f]|\\*")
_SCHEME = re.compile("[a-z][a-z0-9+.-]*")
_PORT = re.compile("[1-9][0-9]{0,4}")
_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_LABEL = re.compile("[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile("[0-9]+|0x[0-9a-f]*")
_REFUSED = """
0080-00A0 00AD 034F 0600-0605 061C 06DD 070F 0890-0891 08E2 115F-1160 1680 17B4-17B5 180B-180F
2000-200F 2024-2026 2028-202F 2044 2047-2049 205F-206F 2100-2101 2105-2106 2215-2216 29F5
29F8-29F9 3000 3164 D800-F8FF FDD0-FDEF FE00-FE1F FE30 FE50-FE6F FEFF FF03 FF05 FF0A FF0E-FF0F
FF1B FF1F FF3C FFA0 FFF0-FFFF 110BD 110CD 13430-1343F 1BCA0-1BCA3 1D173-1D17A E0000-10FFFF
"""
REFUSED = frozenset(
    code
    for pair in _REFUSED.split()
    for code in range(int(pair.split("-")[0], 16), int(pair.split("-")[-1], 16) + 1)
) | frozenset(code for code in range(0x110000) if code & 0xFFFE == 0xFFFE)
"""Code points beyond ASCII that no resource holds."""


class RefusedError(ValueError):
    """A text that is not canonical; ``reason`` is the stable code."""

    def __init__(self, text: str, reason: str = "malformed") -> None:
        super().__init__(f"{reason}: {text!r}")
        self.reason = reason


@dataclass(frozen=True)
class Parsed:
    """A canonical text as an automaton: a line of steps, read from left to right.

    A step is a token to be taken once, or one of ``authority*`` (any labels, address and port),
    ``label+``, ``char*``, and ``rest`` and ``tail`` (any further segments).
    """

    scheme: str
    steps: tuple[str, ...]

    def start(self) -> frozenset[int]:
        return self._skip({0})

    def after(self, places: Iterable[int], token: str) -> frozenset[int]:
        """Where the automaton may be after one more token."""
        return self._skip({new for place in places for new in self._moves(place, token)})

    def accepts(self, places: Iterable[int]) -> bool:
        done = len(self.steps)
        return any(place == done or self.steps[place] in {"rest", "tail"} for place in places)

    def _moves(self, place: int, token: str) -> Iterator[int]:
        step = self.steps[place] if place < len(self.steps) else ""
        kind = token[0]
        if step == token:
            yield place + 1
        elif step == "authority*" and kind in "LAP":
            yield place
        elif step == "label+" and kind == "L":
            yield place
            yield place + 1
        elif (step == "char*" and kind == "C") or (step == "tail" and kind in "C/"):
            yield place
        elif step == "rest" and kind == "/":
            yield place + 1

    def _skip(self, places: set[int]) -> frozenset[int]:
        """The same places, and those beyond steps that may take nothing."""
        reached = set(places)
        for place in places:
            beyond = place
            while beyond < len(self.steps) and self.steps[beyond] in {"authority*", "char*"}:
                beyond += 1
                reached.add(beyond)
        return frozenset(reached)


def parse(text: str, *, wild: bool = True) -> Parsed:
    """Reads a pattern, or a resource where ``wild`` is false; raises ``RefusedError``."""
    if len(text.encode("utf-8", "surrogatepass")) > 512:
        raise RefusedError(text, "too_large")
    scheme, separator, tail = text.partition("://")
    authority, *segments = tail.split("/")
    steps = [*_authority(scheme, authority), *_path(segments)]
    wildcards = {"authority*", "label+", "char*", "rest", "tail"}
    canonical = (
        separator
        and _SCHEME.fullmatch(scheme)
        and not any(ord(char) in REFUSED for char in text)
        and unicodedata.is_normalized("NFC", text)
        and unicodedata.is_normalized("NFC", unquote(text))
        and "" not in steps
        and (wild or not wildcards.intersection(steps))
    )
    if not canonical:
        raise RefusedError(text)
    return Parsed(scheme, tuple(steps))


def matches(pattern_text: str, resource_text: str) -> bool:
    """Whether the pattern matches the resource; raises ``RefusedError``."""
    pattern, resource = parse(pattern_text), parse(resource_text, wild=False)
    places = pattern.start()
    for token in resource.steps:
        places = pattern.after(places, token)
    return pattern.scheme == resource.scheme and pattern.accepts(places)


def covers(parent_text: str, child_text: str) -> bool:
    """Whether the parent matches every resource that the child matches; raises ``RefusedError``."""
    parent, child = parse(parent_text), parse(child_text)
    if parent.scheme != child.scheme:
        return False
    tokens = {step for step in (*parent.steps, *child.steps) if step[0] in "LAPC/"}
    # What neither names: another label, address, port and char; the dot, which is special.
    tokens |= {"Lx?", "A?", "P?", "C?", "C.", "/"}
    todo = [(child.start(), parent.start(), "begin")]
    seen = set(todo)
    while todo:
        its, mine, shape = todo.pop()
        if child.accepts(its) and not parent.accepts(mine) and _is_resource(child.scheme, shape):
            return False
        for token in tokens:
            turn = (child.after(its, token), parent.after(mine, token))
            new = (*turn, _shape(child.scheme, shape, token))
            if new[0] and new[2] and new not in seen:
                seen.add(new)
                todo.append(new)
    return True


def _shape(scheme: str, shape: str, token: str) -> str:
    """What the start of a resource looks like after one more token; empty where it is none."""
    kind, value = token[0], token[1:]
    if kind == "L" and scheme != "file" and shape in {"begin", "name", "number"}:
        return "number" if scheme in PORTS and _NUMBER.fullmatch(value) else "name"
    if kind == "A" and scheme in PORTS and shape == "begin":
        return "address"
    if kind == "P" and shape in {"name", "address"}:
        return "port"
    if kind == "/" and _is_resource(scheme, shape):
        return "/"
    if kind == "C" and shape in {"/", ".", "..", "segment"}:
        return {"/.": ".", "..": ".."}.get(shape + value, "segment")
    return ""


def _is_resource(scheme: str, shape: str) -> bool:
    return shape in {"name", "address", "port", "segment"} or (
        shape == "begin" and scheme not in PORTS
    )


def _authority(scheme: str, authority: str) -> list[str]:
    """The steps of an authority; an empty step where it is refused."""
    if authority == "*" and scheme != "file":
        return ["authority*"]
    if authority == "" and scheme not in PORTS:
        return []
    if scheme == "file":
        return [""]
    wild = authority.startswith("*.")
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(.*))?", authority[2 * wild :], re.DOTALL)
    if not found:
        return [""]
    name, port = found[1], found[2]
    steps = ["label+"] * wild + _name(scheme, name, wild=wild)
    if port is not None:
        fine = _PORT.fullmatch(port) and int(port) < 65536 and port != PORTS.get(scheme)
        steps.append("P" + port if fine else "")
    return steps


def _name(scheme: str, name: str, *, wild: bool) -> list[str]:
    labels = name.split(".")
    if scheme not in PORTS:
        return ["L" + label for label in labels] if _NAME.fullmatch(name) else [""]
    if name.startswith("[") or _NUMBER.fullmatch(labels[-1]):
        return ["A" + name] if not wild and _is_address(name) else [""]
    fine = len(name) <= (251 if wild else 253) and all(map(_is_label, labels))
    return ["L" + label for label in labels] if fine else [""]


def _is_address(name: str) -> bool:
    try:
        if name.startswith("["):
            address = ipaddress.IPv6Address(name[1:-1])
            second = address.ipv4_mapped is not None or address.scope_id is not None
            return not second and f"[{address.compressed}]" == name
        return str(ipaddress.IPv4Address(name)) == name
    except ValueError:
        return False


def _is_label(label: str) -> bool:
    if not _LABEL.fullmatch(label):
        return False
    if not label.startswith("xn--"):
        return True
    try:
        plain = label[4:].encode().decode("punycode")
        again = plain.encode("punycode").decode()
    except UnicodeError:
        return False
    folded = unicodedata.normalize("NFKC", plain.casefold())
    known = all(unicodedata.category(char)[0] in "LMN" or char == "-" for char in plain)
    mark = unicodedata.category(plain[:1] or "a")[0] == "M"
    return again == label[4:] and folded == plain and known and not mark and not plain.isascii()


def _path(segments: list[str]) -> list[str]:
    """The steps of a path; an empty step where it is refused."""
    steps: list[str] = []
    for index, segment in enumerate(segments):
        if segment == "**" and index == len(segments) - 1:
            return [*steps, "rest", "tail"]
        chars = _CHAR.findall(segment)
        if "".join(chars) != segment or segment in {"", ".", ".."} or "**" in segment:
            return [""]
        steps.append("/")
        steps.extend("char*" if char == "*" else "C" + char for char in chars)
    return steps
