"""Checks chunks of zarr that are packed by Blosc before they are unpacked.

Blosc reads as many bytes as the head of a chunk claims. These may lie beyond the end of the chunk, which
would crash the process.
"""

from __future__ import annotations

import struct
from typing import Any

from zarr.storage import LocalStore

_HEAD = struct.Struct("<BBBBIII")
"""The head of a chunk: its version, the codec's version, flags, bytes of a value; bytes unpacked, of a block,
and packed, as specified in README_CHUNK_FORMAT.rst of c-blosc.
"""

_VERSION = 2


class CheckedStore(LocalStore):
    """A folder whose chunks are checked when they are read.

    Args:
        packed: prefixes of the names of chunks that are packed by Blosc.
        most: the maximum number of bytes of an unpacked chunk.
    """

    packed: tuple[str, ...] = ()
    most = 1 << 28

    async def get(self, key: str, *args: Any, **options: Any) -> Any:
        """Reads a file of the folder, or a part of it.

        Raises:
            ValueError: for a chunk with a false head.
        """
        chunk = await super().get(key, *args, **options)
        if chunk is not None and key.startswith(self.packed):
            claim = self._false_claim(chunk[: _HEAD.size].to_bytes(), len(chunk))
            if claim:
                raise ValueError(f"{key} claims {claim}")
        return chunk

    def _false_claim(self, head: bytes, length: int) -> str:
        if len(head) < _HEAD.size or head[0] != _VERSION:  # Blosc would not unpack it
            return ""
        *_, unpacked, _, packed = _HEAD.unpack(head)
        if packed > length:
            return f"{packed:,} bytes in {length:,}"
        return f"{unpacked:,} bytes" if unpacked > self.most else ""
