"""Reads class names from files: lines, tables, JSON, YAML and Python's notation.

Only the content of a file counts. If it contains indices, they decide the order. A file that can be
understood in several ways is refused, and the message shows how its first lines were understood.
"""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnconv.errors import UsageError
from fcnconv.system.records import parse_json

MOST = 16_000_000
"""The largest file of names, in bytes: 160 bytes for each of 100,000 classes."""

KEYS = (
    *("names", "class_to_idx", "idx_to_class", "id2label", "label2id", "classes", "class_names"),
    *("categories", "label_names", "labels"),
)
"""The keys under which the description of a data set may hold the names. The first one that it has counts."""

_REMEDY = "write one name per line in index order, or a JSON list of names"
_WNID = re.compile(r"n\d{8}")
_INDEX_FIRST = re.compile(r"(\d{1,9})(?:\s*(?:[:,;=|)]|[-=]>)\s*|\.?\s+)(\S.*)")
_INDEX_LAST = re.compile(r"(.*?\S)(?:\s*(?:[:,;=|]|[-=]>)\s*|\s+)(\d{1,9})")
_HEADER = frozenset(
    "index idx id ids class classes class_id class_idx class_index class_name label label_id label_name "
    "labels name names category category_id category_name categories number no nr synset wnid code target "
    "description display_name".split()
)
_INDEX_COLUMNS = (
    *("index", "idx", "id", "class_id", "class_idx", "class_index", "label_id", "category_id"),
    *("number", "no", "nr"),
)
_NAME_COLUMNS = ("name", "class_name", "label_name", "category_name", "display_name", "description")


class NamesError(UsageError):
    """A file or an object that contains no class names, or that can be understood in several ways."""


def read_names(path: Path) -> tuple[str, ...]:
    """Read the class names in a file.

    These forms are understood:

    - one name per line, also with its index before or after it, or with a WordNet id before it;
    - ``.csv`` and ``.tsv``, with or without a header;
    - lists and dictionaries in JSON and YAML, from index to name or from name to index;
    - ``names`` of a YOLO data set;
    - dictionaries in Python's notation.

    Args:
        path: the file.

    Returns:
        The names in index order. WordNet ids (``n02124075``) take their place if the file contains them.

    Raises:
        NamesError: the file cannot be read or is ambiguous. For an ambiguous file, the message shows how its
            first three lines were understood.
    """
    text = _text(path)
    suffix = path.suffix.lower()
    try:
        if text.lstrip()[:1] in ("{", "[") or suffix == ".json" or _is_tuple(text):
            return names_of_object(parse_notation(text))
        if suffix in (".yaml", ".yml"):
            return names_of_object(_yaml(text))
        if suffix in (".csv", ".tsv"):
            return _of_table(text, "\t" if suffix == ".tsv" else ",")
        return _of_lines(text)
    except NamesError as error:
        raise NamesError(f"{path}: {error}") from error


def _is_tuple(text: str) -> bool:
    """Whether a text is a tuple in Python's notation: a line may also be a name in parentheses."""
    text = text.strip()
    return text[:1] == "(" and text[-1:] == ")" and text[1:].lstrip()[:1] in ("'", '"')


def names_of_object(found: Any) -> tuple[str, ...]:
    """The names in a list or dictionary from JSON, YAML or a checkpoint. Raises NamesError."""
    if isinstance(found, Mapping):
        key = next((key for key in KEYS if isinstance(found.get(key), (Mapping, list, tuple))), None)
        if key is not None:
            return names_of_object(found[key])
        return _of_dictionary(dict(found))
    if not isinstance(found, (list, tuple)) or not found:
        raise NamesError(f"a list or dictionary of names is expected, not {_short(found)}")
    if all(isinstance(item, Mapping) for item in found):  # as COCO lists its categories
        pairs = [
            (_index(_of_keys(item, "id", "index", "idx")), _of_keys(item, "name", "label")) for item in found
        ]
        return (
            _ordered(pairs) if all(index is not None for index, _ in pairs) else _plain([n for _, n in pairs])
        )
    return _plain(found)


def _of_keys(item: Mapping[Any, Any], *keys: str) -> Any:
    return next((item[key] for key in keys if key in item), None)


def _of_dictionary(found: dict[Any, Any]) -> tuple[str, ...]:
    by_index = [(_index(key), value) for key, value in found.items()]
    to_index = [(_index(value), key) for key, value in found.items()]
    keyed, valued = (
        bool(pairs) and all(index is not None for index, _ in pairs) for pairs in (by_index, to_index)
    )
    if keyed and valued:
        raise NamesError(f"both keys and values are numbers ({_shown(found)}); {_REMEDY}")
    if keyed:
        return _ordered(by_index)
    if valued:
        return _ordered(to_index)
    raise NamesError(f"neither its keys nor its values are indices ({_shown(found)}); {_REMEDY}")


def _index(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and value >= 0 else None


def _ordered(pairs: Sequence[tuple[int | None, Any]]) -> tuple[str, ...]:
    """Sorts the names of (index, name) pairs by their indices, which start at 0 or 1. Raises NamesError."""
    by_index = {index: value for index, value in pairs if index is not None}
    first = min(by_index, default=0)
    wanted = range(first, first + len(pairs))
    if first not in (0, 1) or set(by_index) != set(wanted):
        missing = [index for index in range(len(pairs)) if index not in by_index]
        twice = len(pairs) - len(by_index)
        why = (
            f"indices that appear twice: {twice}"
            if twice
            else f"{missing[0]} is missing"
            if missing
            else "some are too large"
        )
        raise NamesError(f"the indices do not fit {len(pairs)} classes: {why}; {_REMEDY}")
    return _plain([by_index[index] for index in wanted])


def _plain(values: Sequence[Any]) -> tuple[str, ...]:
    names = []
    for position, value in enumerate(values):
        if isinstance(value, (list, tuple)) and len(value) == 2 and _WNID.fullmatch(str(value[0])):
            value = _of_wnid(str(value[0]), str(value[1]).replace("_", " "))  # the notation of Keras
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)  # in YAML, a class may be called 7
        if not isinstance(value, str) or not value.strip():
            raise NamesError(f"name {position} is {_short(value)}; {_REMEDY}")
        names.append(value.strip())
    return tuple(names)


def _of_wnid(wnid: str, name: str) -> str:
    """The name of a class that has both a WordNet id and a name: the id if ImageNet has it, else the name."""
    from fcnconv.labels import imagenet

    return wnid if wnid in imagenet().wnids else name


# Lines


@dataclass(frozen=True)
class _Line:
    """A line, split into its index (None if it has no index) and its name."""

    index: int | None
    name: str

    def __str__(self) -> str:
        return repr(self.name) if self.index is None else f"class {self.index} is {self.name!r}"


def _of_lines(text: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    lines = _unquoted(lines)
    if not lines and text.strip():
        raise NamesError(f"all of its lines start with #, as comments do; {_REMEDY}")
    if not lines or "" in lines:
        line = lines.index("") + 1 if lines else 1
        raise NamesError(f"line {line} is empty; write one category per line, in index order")
    if any(line.endswith("{") for line in lines):
        raise NamesError(f"not a list of names, but a program's own notation ({lines[0]!r}); {_REMEDY}")
    names = _indexed(lines)
    if names is not None:
        return names
    words = [line.split(None, 1) for line in lines]
    if all(_WNID.fullmatch(parts[0]) for parts in words):
        if all(len(parts) == 2 for parts in words):
            return tuple(_of_wnid(*parts) for parts in words)
        if all(len(parts) == 1 for parts in words):
            return tuple(lines)
    return tuple(lines)


def _indexed(lines: list[str]) -> tuple[str, ...] | None:
    """The names of lines that each have an index, sorted by it. Returns None if the lines have no indices.

    Raises NamesError.
    """
    for pattern, index, name in ((_INDEX_FIRST, 1, 2), (_INDEX_LAST, 2, 1)):
        words = re.split(r"[\s,;:|]+", lines[0])
        header = int(len(lines) > 2 and pattern.fullmatch(lines[0]) is None and _is_header(words))
        most = 2 * len(lines)  # among ten classes, "1999" is part of a name and not an index
        understood = [
            _Line(int(match[index]), _bare(match[name]))
            if (match := pattern.fullmatch(line)) and int(match[index]) <= most
            else _Line(None, line)
            for line in lines[header:]
        ]
        hits = [line for line in understood if line.index is not None]
        if not hits or 2 * len(hits) < len(understood):
            continue
        if len({line.name for line in hits}) < len(set(lines[header:])) == len(hits):
            continue  # "1 star", "2 stars", "3 stars": only the numbers distinguish the names
        shown = "; ".join(f"line {n + header}: {line}" for n, line in enumerate(understood[:3], 1))
        if len(hits) < len(understood):
            raise NamesError(f"some lines have an index and others do not ({shown}); {_REMEDY}")
        if len(understood) > 1 and all(_index(line.name) is not None for line in understood):
            raise NamesError(f"which number is the index ({shown})? {_REMEDY}")
        try:
            names = _ordered([(line.index, line.name) for line in understood])
        except NamesError as error:
            raise NamesError(f"{error} ({shown})") from error
        return _without_wnids(names)
    return None


def _without_wnids(names: tuple[str, ...]) -> tuple[str, ...]:
    words = [name.split(None, 1) for name in names]
    if all(len(parts) == 2 and _WNID.fullmatch(parts[0]) for parts in words):
        return tuple(_of_wnid(*parts) for parts in words)
    return names


def _unquoted(lines: list[str]) -> list[str]:
    """The lines without their quotes and commas, if every line has quotes."""
    bare = [_bare(line.rstrip(",")) for line in lines]
    quoted = all(
        line[:1] in ("'", '"') and line.rstrip(",")[-1:] == line[0] and len(line) > 2 for line in lines
    )
    return bare if quoted else lines


def _bare(name: str) -> str:
    """A name without the quotes around it."""
    name = name.strip()
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] and name[0] in "'\"" else name


def _is_header(cells: Sequence[str]) -> bool:
    return bool(cells) and all(
        cell.strip().strip("\"'").casefold() in _HEADER for cell in cells if cell.strip()
    )


def _of_table(text: str, delimiter: str) -> tuple[str, ...]:
    """The names in a table: the column with a heading such as ``name``, or the only possible column."""
    if delimiter == "," and ";" in text.partition("\n")[0] and "," not in text.partition("\n")[0]:
        delimiter = ";"  # from spreadsheets in languages with a decimal comma
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = [[" ".join(cell.split()) for cell in row] for row in table]  # a quoted cell may have several lines
    rows = [row for row in rows if any(row)]
    header = [cell.casefold() for cell in rows.pop(0)] if len(rows) > 1 and _is_header(rows[0]) else []
    if not rows or len({len(row) for row in rows} | ({len(header)} if header else set())) != 1:
        raise NamesError(f"its rows are of different lengths ({_first(rows)}); {_REMEDY}")
    columns = list(zip(*rows, strict=True))
    numbered = [
        n
        for n, column in enumerate(columns)
        if _counts(column)
        or (header and header[n] in _INDEX_COLUMNS and all(_index(cell) is not None for cell in column))
    ]
    called = [n for n, cell in enumerate(header) if cell in _NAME_COLUMNS]
    wnids = [n for n, column in enumerate(columns) if all(map(_WNID.fullmatch, column))]
    if len(numbered) > 1:
        raise NamesError(f"which column is the index ({_first(rows)})? {_REMEDY}")
    rest = [n for n in range(len(columns)) if n not in numbered and n not in wnids]
    names = called if len(called) == 1 else rest or wnids
    if len(names) != 1:
        raise NamesError(f"which column holds the names ({_first(rows)})? {_REMEDY}")
    column = columns[names[0]]
    if wnids and names[0] not in wnids:
        column = tuple(map(_of_wnid, columns[wnids[0]], column))
    if not numbered:
        if any(_index(name) is not None for name in column):
            raise NamesError(f"are its numbers indices or names ({_first(rows)})? {_REMEDY}")
        return _plain(column)
    return _ordered(
        [(_index(number), name) for number, name in zip(columns[numbered[0]], column, strict=True)]
    )


def _counts(column: Sequence[str]) -> bool:
    """Whether a column contains the indices of its rows, from 0 or 1, in any order."""
    indices = sorted(index for cell in column if (index := _index(cell)) is not None)
    return (
        bool(indices)
        and indices[0] in (0, 1)
        and indices == list(range(indices[0], indices[0] + len(column)))
    )


# Notations


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: not a possible file name
        raise NamesError(f"{path}: the categories cannot be read: {error}") from error
    if len(content) > MOST:
        raise NamesError(
            f"{path}: a file of {len(content):,} bytes is too large for a list of names; {_REMEDY}"
        )
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise NamesError(
            f"{path}: the categories cannot be read: byte {error.start} is not UTF-8; save the file as "
            "UTF-8, such as with: iconv -f LATIN1 -t UTF-8"
        ) from error


def parse_notation(text: str) -> Any:
    """Parses JSON or a literal in Python's notation. Raises NamesError."""
    try:
        return parse_json(text)
    except ValueError as error:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            raise NamesError(f"neither JSON nor a Python dictionary or list ({error})") from error


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise NamesError("reading YAML needs PyYAML; run: pip install 'fcnconv[yaml]'") from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NamesError(f"not YAML ({str(error).splitlines()[0]})") from error


def _shown(found: Mapping[Any, Any]) -> str:
    return "; ".join(f"{_short(key)}: {_short(value)}" for key, value in list(found.items())[:3])


def _first(rows: Sequence[Sequence[str]]) -> str:
    return "; ".join(f"row {n}: {', '.join(map(repr, row))}" for n, row in enumerate(rows[:3], 1))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
