"""Small modules that take the compiler long, or much memory: `bomb(KIND, SIZE)` gives the bytes.

Each is valid, within the bounds of size, and does nothing when it is run.
"""

from __future__ import annotations

I32, VOID = 0x7F, 0x40
LOCALS = 50_000
"""What one function may have (the limit of every engine)."""
VALUES = 1000
"""What a function may take and give (the limit of every engine)."""


def bomb(kind: str, size: int) -> bytes:
    """A module of the given kind; ``size`` is how often its pattern is repeated."""
    return {"locals": many_locals, "values": many_values, "branches": many_branches}[kind](size)


def many_locals(functions: int) -> bytes:
    """Functions with as many locals as there may be, which a few bytes declare."""
    body = leb(1) + leb(LOCALS) + bytes([I32, 0x0B])
    return module([([], [])], [body] * functions)


def many_values(calls: int) -> bytes:
    """Calls that pass as many values as there may be, each a few bytes long."""
    locals_ = b"".join(b"\x20" + leb(n) for n in range(VALUES))
    body = b"\x00" + locals_ + (b"\x10" + leb(1)) * calls + b"\x0b"
    return module([([], []), ([I32] * VALUES, [I32] * VALUES)], [body], of=1)


def many_branches(blocks: int) -> bytes:
    """Blocks within blocks, and after the end of each a jump table to all that are still open."""
    tables = [leb(n) + b"".join(map(leb, range(n))) + leb(n) for n in range(blocks, -1, -1)]
    jumps = b"\x0b".join(b"\x41\x00\x0e" + table for table in tables)
    return module([([], [])], [b"\x00" + bytes([0x02, VOID]) * blocks + jumps + b"\x0b"])


def module(types: list[tuple[list[int], list[int]]], bodies: list[bytes], of: int = 0) -> bytes:
    """A command with these functions, all of one type, behind a `_start` that does nothing."""
    signatures = [b"\x60" + vector([bytes([t]) for t in a]) + vector([bytes([t]) for t in b])
                  for a, b in types]  # fmt: skip
    declared = [leb(0)] + [leb(of)] * len(bodies)
    exports = [b"\x06memory\x02\x00", b"\x06_start\x00\x00"]
    code = [leb(len(body)) + body for body in [b"\x00\x0b", *bodies]]
    return b"".join((
        b"\0asm\x01\0\0\0", section(1, signatures), section(3, declared),
        section(5, [b"\x00\x01"]), section(7, exports), section(10, code),
    ))  # fmt: skip


def section(number: int, items: list[bytes]) -> bytes:
    body = vector(items)
    return bytes([number]) + leb(len(body)) + body


def vector(items: list[bytes]) -> bytes:
    return leb(len(items)) + b"".join(items)


def leb(number: int) -> bytes:
    """An unsigned LEB128 number, as WebAssembly writes sizes."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
