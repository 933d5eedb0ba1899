"""TIFF files of any layout, written by the book: what no library writes must be read or refused, too."""

from __future__ import annotations

import struct
import zlib

import numpy as np

FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 16: "Q"}
SHORT, LONG = 3, 4


def packed(samples: np.ndarray, bits: int, order: str = "<") -> bytes:
    """[rows, samples] as rows of so many bits each, the highest bit first, every row ending on a byte."""
    if bits in (8, 16, 32):
        return samples.astype(f"{order}u{bits // 8}").tobytes()
    places = np.arange(bits - 1, -1, -1)
    spread = (samples.astype(np.int64)[..., None] >> places & 1).astype(np.uint8)
    return np.packbits(spread.reshape(len(samples), -1), axis=1).tobytes()


def tiff(
    pages: list[tuple[dict[int, tuple[int, list[int]]], list[bytes]]],
    order: str = "<",
    big: bool = False,
) -> bytes:
    """Pages of tags {tag: (type, values)} and strips; where the strips lie is filled in."""
    out = bytearray(
        (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    )
    if big:
        out += struct.pack(order + "HH", 8, 0)
    offset, count, entry, room = ("Q", "Q", "HHQ", 8) if big else ("I", "H", "HHI", 4)
    link = len(out)
    out += bytes(room)
    for tags, strips in pages:
        places = []
        for strip in strips:
            places.append(len(out))
            out += strip + b"\0" * (len(strip) % 2)
        names = (324, 325) if 322 in tags else (273, 279)
        entries = tags | {names[0]: (LONG, places), names[1]: (LONG, [len(s) for s in strips])}
        rows = []
        for tag, (kind, values) in sorted(entries.items()):
            data = b"".join(struct.pack(order + FORMATS[kind], value) for value in values)
            if len(data) > room:
                place = len(out)
                out += data + b"\0" * (len(data) % 2)
                data = struct.pack(order + offset, place)
            rows.append(
                struct.pack(order + entry, tag, kind, len(values)) + data.ljust(room, b"\0")
            )
        struct.pack_into(order + offset, out, link, len(out))
        out += struct.pack(order + count, len(rows)) + b"".join(rows)
        link = len(out)
        out += bytes(room)
    return bytes(out)


def page(
    samples: np.ndarray,
    bits: int,
    photometric: int,
    *,
    planar: bool = False,
    order: str = "<",
    deflate: bool = False,
    rows_per_strip: int | None = None,
    tile: int | None = None,
    extra: list[int] | None = None,
    **more: tuple[int, list[int]],
) -> tuple[dict[int, tuple[int, list[int]]], list[bytes]]:
    """One page of samples [height, width, samples per pixel]; `t320=(SHORT, […])` gives a further tag."""
    height, width, per_pixel = samples.shape
    planes = [samples[..., [k]] for k in range(per_pixel)] if planar else [samples]
    strips = []
    for plane in planes:
        for block in _blocks(plane, rows_per_strip or height, tile):
            data = packed(block.reshape(len(block), -1), bits, order)
            strips.append(zlib.compress(data) if deflate else data)
    tags = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [bits] * per_pixel),
        259: (SHORT, [8 if deflate else 1]),
        262: (SHORT, [photometric]),
        277: (SHORT, [per_pixel]),
        284: (SHORT, [2 if planar else 1]),
    }
    if tile is None:
        tags[278] = (LONG, [rows_per_strip or height])
    else:
        tags |= {322: (LONG, [tile]), 323: (LONG, [tile])}
    if extra is not None:
        tags[338] = (SHORT, extra)
    return tags | {int(name[1:]): value for name, value in more.items()}, strips


def _blocks(plane: np.ndarray, rows: int, tile: int | None) -> list[np.ndarray]:
    height, width = plane.shape[:2]
    if tile is None:
        return [plane[top : top + rows] for top in range(0, height, rows)]
    padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
    return [
        padded[top : top + tile, left : left + tile]
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]
