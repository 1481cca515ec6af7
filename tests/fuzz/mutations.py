"""Altered copies of a file: bytes anywhere, and the inside of JSON, of zip archives and of safetensors, where
a change of bytes alone would only break the outer form.

Everything comes from the given random numbers, so that an input can be made again by its number.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

NUMBERS = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""What counts, sizes and offsets break at."""

TEXTS = (b"..", b"/", b"\0", b"\r\n", b"</script>", b"=1+1", b"9" * 5000, "é\u2028".encode(), b"\xff\xfe")

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e-320, 1e308, 10**9, 2**31, 2**63, 10**400, -(10**400)),
    *("", "0", "NaN", "../../x", "\ud800", "a" * 3000, [], {}, [[]], [None], [0, 0], [1e308] * 3, {"a": 1}),
)
"""What a value of JSON may be instead."""

_MOST = 1 << 20
"""Bytes of an input, at most. What is larger tells nothing that a smaller one does not."""


def mutated(content: bytes, random: Random) -> bytes:
    """An altered copy of a file."""
    inside = _inside(content)
    if inside is not None and random.random() < 0.7:
        content = inside(content, random)
        if random.random() < 0.9:
            return content[:_MOST]
    for _ in range(1 + random.getrandbits(2) * random.getrandbits(1)):
        content = random.choice(_OF_BYTES)(content, random)
    return content[:_MOST]


def _inside(content: bytes) -> Callable[[bytes, Random], bytes] | None:
    """How to alter what lies inside a file; None for one whose form is not known here."""
    if content.startswith(b"PK"):
        return _zip
    if content.lstrip()[:1] in (b"{", b"["):
        return _json
    return _safetensors if content[8:9] == b"{" else None


def _json(content: bytes, random: Random) -> bytes:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return random.choice(_OF_BYTES)(content, random)
    if random.random() < 0.02:
        depth = random.choice((100, 2_000, 200_000))
        return random.choice((b"[", b'{"a":')) * depth
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        record = _altered(record, random)
    return json.dumps(record).encode()[: 4 * _MOST]


def _altered(record: Any, random: Random) -> Any:
    """The record with something in it replaced, left out or moved."""
    places = list(_places(record))
    if not places or random.random() < 0.03:
        return copy.deepcopy(random.choice(VALUES))
    parent, key = random.choice(places)
    other, from_key = random.choice(places)
    how = random.randrange(6)
    if how == 0:
        del parent[key]
    elif how == 1:
        parent[key] = copy.deepcopy(other[from_key])
    elif how == 2 and isinstance(parent[key], (int, float)):
        parent[key] *= random.choice((-1, 0, 2, 1000))
    elif how == 3 and isinstance(parent[key], list):
        parent[key] = parent[key] * random.choice((0, 2, 50))
    else:
        parent[key] = copy.deepcopy(random.choice(VALUES))
    return record


def _places(record: Any) -> Any:
    """(container, key) of everything in a record."""
    if not isinstance(record, (dict, list)):
        return
    for key, value in list(record.items() if isinstance(record, dict) else enumerate(record)):
        yield record, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _zip(content: bytes, random: Random) -> bytes:
    """The archive with one member altered, doubled or left out, and right checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # one that was broken before
        return random.choice(_OF_BYTES)(content, random)
    place = random.randrange(len(members))
    name, inner = members[place]
    how = random.randrange(8)
    if how == 0:
        del members[place]
    elif how == 1:
        members.append((name.replace("/", "/../", 1), inner))
    elif how == 2:
        members[place] = (random.choice(members)[0], inner)
    else:
        members[place] = (name, mutated(inner, random) if inner else b"\x80")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, inner in dict(members).items():
            archive.writestr(name, inner)
    return out.getvalue()


def _safetensors(content: bytes, random: Random) -> bytes:
    """The file with its header altered, and a length that fits."""
    length = int.from_bytes(content[:8], "little")
    header = _json(content[8 : 8 + length], random)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _place(content: bytes, random: Random) -> int:
    """Somewhere in a file, half of the time in its head, where most of what it claims stands."""
    length = len(content) if random.getrandbits(1) else min(len(content), 256)
    return random.randrange(length) if length else 0


def _flip(content: bytes, random: Random) -> bytes:
    if not content:
        return b"\0"
    at = _place(content, random)
    return content[:at] + bytes([content[at] ^ (1 << random.randrange(8))]) + content[at + 1 :]


def _number(content: bytes, random: Random) -> bytes:
    """A number of 1, 2, 4 or 8 bytes somewhere, in either order of bytes."""
    code = random.choice("BHIQ")
    number = random.choice(NUMBERS) & (256 ** struct.calcsize(code) - 1)
    said = struct.pack(random.choice("<>") + code, number)
    at = _place(content, random)
    return content[:at] + said + content[at + len(said) :]


def _cut(content: bytes, random: Random) -> bytes:
    return content[: _place(content, random)]


def _leave_out(content: bytes, random: Random) -> bytes:
    at = _place(content, random)
    return content[:at] + content[at + random.choice((1, 2, 4, 16, 100)) :]


def _double(content: bytes, random: Random) -> bytes:
    at, length = _place(content, random), random.choice((1, 2, 4, 16, 100, 5000))
    return content[:at] + content[at : at + length] * random.choice((2, 2, 50)) + content[at + length :]


def _insert(content: bytes, random: Random) -> bytes:
    at = _place(content, random)
    return content[:at] + random.choice(TEXTS) + content[at:]


def _noise(content: bytes, random: Random) -> bytes:
    at = _place(content, random)
    said = random.randbytes(random.choice((1, 4, 32)))
    return content[:at] + said + content[at + len(said) :]


_OF_BYTES = (_flip, _flip, _number, _number, _number, _cut, _leave_out, _double, _insert, _noise)
