"""Compression of what is stored, with a limit on what comes out again."""

from __future__ import annotations

import functools
import sys
from typing import Any, Final

from holdfast.errors import DecodingError

_RAW: Final = b"\x00"
_ZSTD: Final = b"\x01"
_SMALLEST_COMPRESSED: Final = 512
_WORTHWHILE: Final = 0.9


def pack(data: bytes) -> bytes:
    """Return the data compressed, if that pays, behind one byte that says how.

    Args:
        data: any bytes; from 512 on they are compressed if that saves more than a tenth.
    """
    if len(data) >= _SMALLEST_COMPRESSED:
        compressed: bytes = _zstd().compress(data)
        if len(compressed) < _WORTHWHILE * len(data):
            return _ZSTD + compressed
    return _RAW + data


def unpack(data: bytes, limit: int) -> bytes:
    """Return what `pack` was given, without ever making room for more than the limit.

    Args:
        data: what `pack` returned.
        limit: the most bytes the result may have.

    Raises:
        DecodingError: the data is damaged, or the result would be larger than the limit.
    """
    method, content = data[:1], data[1:]
    if method == _RAW and len(content) <= limit:
        return content
    if method == _RAW:
        raise _over(limit)
    if method == _ZSTD:
        return _decompress(content, limit)
    raise DecodingError(
        "The stored payload is damaged, or was packed by a newer Holdfast: it begins with "
        f"{method!r}. Restore the database, or upgrade Holdfast."
    )


def _decompress(content: bytes, limit: int) -> bytes:
    zstd = _zstd()
    option = zstd.DecompressionParameter.window_log_max
    lowest, highest = option.bounds()
    window_log = min(max(limit.bit_length(), lowest), highest)
    stream = zstd.ZstdDecompressor(options={option: window_log})
    try:
        plain: bytes = stream.decompress(content, max_length=limit + 1)
    except zstd.ZstdError as error:
        raise DecodingError(
            "The stored payload doesn't decompress: it is damaged, or larger than "
            f"{limit} bytes. Run `holdfast doctor`."
        ) from error
    if len(plain) > limit:
        raise _over(limit)
    if not stream.eof or stream.unused_data:
        raise DecodingError("The stored payload is cut off or has bytes after its end.")
    return plain


def _over(limit: int) -> DecodingError:
    return DecodingError(f"The stored payload is larger than {limit} bytes, so it wasn't read.")


@functools.cache
def _zstd() -> Any:  # noqa: ANN401  one of two modules of the same shape
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
