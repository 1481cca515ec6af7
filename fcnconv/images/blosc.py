"""Chunks of zarr packed by Blosc, looked at before they are unpacked: Blosc reads as many bytes as a chunk's
head claims, which may lie beyond its end and end the process.
"""

from __future__ import annotations

import struct
from typing import Any

from zarr.storage import LocalStore

_HEAD = struct.Struct("<BBBBIII")
"""The head of a chunk: its version, that of the codec, flags, bytes of a value; bytes unpacked, of a block,
and packed, as README_CHUNK_FORMAT.rst of c-blosc has it.
"""

_VERSION = 2


class CheckedStore(LocalStore):
    """A folder. packed: how the names of chunks begin that are packed by Blosc. most: bytes that one may have
    unpacked.
    """

    packed: tuple[str, ...] = ()
    most = 1 << 28

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        """A file of the folder, or a part of it. Raises ValueError for a chunk with a false head."""
        found = await super().get(key, *args, **options)
        if found is not None and key.startswith(self.packed):
            claim = self._false_claim(found[: _HEAD.size].to_bytes(), len(found))
            if claim:
                raise ValueError(f"{key} claims {claim}")
        return found

    def _false_claim(self, head: bytes, length: int) -> str:
        if len(head) < _HEAD.size or head[0] != _VERSION:  # nothing that Blosc would unpack
            return ""
        *_, unpacked, _, packed = _HEAD.unpack(head)
        if packed > length:
            return f"{packed:,} bytes in {length:,}"
        return f"{unpacked:,} bytes" if unpacked > self.most else ""
