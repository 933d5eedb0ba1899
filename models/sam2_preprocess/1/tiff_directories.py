"""A TIFF's directories: which of its pages is the picture, and a file that holds this page's samples alone.

Classic and BigTIFF, both byte orders. No value is read that is not needed, so that odd metadata cost nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from image_errors import InvalidImageError, StructureLimits, check_segments

NUMBER_FORMATS = {1: "B", 3: "H", 4: "I", 16: "Q"}
# Bytes of one value by type, in the order of the specification: BYTE, ASCII, SHORT, LONG, RATIONAL, …
TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
LONG, LONG8, CLASSIC = 4, 16, 42
NEW_SUBFILE_TYPE, OLD_SUBFILE_TYPE, PHOTOMETRIC = 254, 255, 262
REDUCED, TRANSPARENCY, OLD_REDUCED = 1, 4, 2
TRANSPARENCY_PHOTOMETRIC = 4
# What says where the samples are and how they are laid out: width to planar configuration, fax options,
# predictor, colour map, tiles, inks and extra samples, sample format, JPEG tables (new and old), YCbCr.
# fmt: off
SAMPLE_TAGS = frozenset((
    256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 334,
    338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532,
))
# fmt: on
# The longest list that is read here: the colour map of 16 bits.
MAX_VALUES = 3 << 16


@dataclass(frozen=True)
class Form:
    """Byte order, and the widths of counts and offsets: classic TIFF or BigTIFF."""

    order: str
    is_big: bool

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.is_big else "I")

    @property
    def entry_count(self) -> str:
        return self.order + ("Q" if self.is_big else "H")

    @property
    def entry(self) -> str:
        """Tag, type, number of values, and the field that holds them or says where they are."""
        return self.order + ("HHQ8s" if self.is_big else "HHI4s")

    @property
    def field_bytes(self) -> int:
        return 8 if self.is_big else 4


@dataclass(frozen=True)
class Entry:
    """One tag: its type, how many values, and the field that holds them or says where they are."""

    kind: int
    count: int
    field: bytes


@dataclass(frozen=True)
class Directory:
    """One page's tags; `values` reads those that are whole numbers."""

    data: bytes
    form: Form
    entries: dict[int, Entry]

    def values(self, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """A tag's numbers; the default where it is absent.

        Raises:
            InvalidImageError: of another type, too many, or ending outside the file.
        """
        entry = self.entries.get(tag)
        if entry is None:
            return default
        if entry.kind not in NUMBER_FORMATS:
            raise damaged(f"tag {tag} is not a list of whole numbers")
        numbers = f"{self.form.order}{entry.count}{NUMBER_FORMATS[entry.kind]}"
        return struct.unpack(numbers, self.raw(tag))

    def raw(self, tag: int) -> bytes:
        """A tag's values as they are in the file. Raises as `values` does."""
        entry = self.entries[tag]
        size = TYPE_BYTES.get(entry.kind, 0) * entry.count
        if not 1 <= entry.count <= MAX_VALUES or size == 0:
            raise damaged(f"tag {tag} has {entry.count} values of type {entry.kind}")
        raw = entry.field[:size]
        if size > len(entry.field):
            (offset,) = struct.unpack(self.form.offset, entry.field)
            raw = self.data[offset : offset + size]
        if len(raw) < size:
            raise damaged(f"tag {tag} lies behind the file's end")
        return raw

    def value(self, tag: int, default: int) -> int:
        return self.values(tag, (default,))[0]


def find_picture(data: bytes, limits: StructureLimits) -> Directory:
    """The directory of the one picture. Thumbnails, smaller levels and transparency pages are none.

    Raises:
        InvalidImageError: several pictures, more directories than are looked at, or a damaged file.
    """
    directories = _read_directories(data, limits)
    pictures = [directory for directory in directories if _is_picture(directory)]
    if len(pictures) > 1:
        raise InvalidImageError(
            f"image: expected one picture, got an animated or multi-page TIFF of {len(pictures)}"
        )
    return (pictures or directories)[0]


def alone(directory: Directory, replaced: dict[int, tuple[int, ...]]) -> bytes:
    """The same file with one directory: this one, its sample tags alone, some of them replaced.

    A tag that is replaced by () is left out. The samples stay where they are; the new directory follows
    the old file, so that no offset changes. It is always a classic one: Pillow reads no big-endian BigTIFF,
    and no file here is large enough to need one.
    """
    data, order = directory.data, directory.form.order
    form = Form(order, is_big=False)
    kept = directory.entries.keys() & SAMPLE_TAGS
    tags = sorted(
        (kept | replaced.keys()) - {tag for tag, values in replaced.items() if not values}
    )
    padding = len(data) % 2
    start = len(data) + padding
    count = struct.pack(form.entry_count, len(tags))
    values_at = start + len(count) + len(tags) * struct.calcsize(form.entry) + form.field_bytes
    rows, values = [], b""
    for tag in tags:
        if tag in replaced:
            kind, packed = LONG, struct.pack(f"{order}{len(replaced[tag])}I", *replaced[tag])
        elif directory.form.is_big:
            kind, packed = _as_classic(directory, tag)
        else:
            entry = directory.entries[tag]
            rows.append(struct.pack(form.entry, tag, entry.kind, entry.count, entry.field))
            continue
        field = packed.ljust(form.field_bytes, b"\0")
        if len(packed) > form.field_bytes:
            field = struct.pack(form.offset, values_at + len(values))
            values += packed
        rows.append(struct.pack(form.entry, tag, kind, len(packed) // TYPE_BYTES[kind], field))
    header = data[:2] + struct.pack(order + "HI", CLASSIC, start)
    no_next = b"\0" * form.field_bytes
    samples = memoryview(data)[len(header) :]
    return b"".join((header, samples, b"\0" * padding, count, *rows, no_next, values))


def _as_classic(directory: Directory, tag: int) -> tuple[int, bytes]:
    """Type and values of a BigTIFF's tag, with 32 bits where it has 64."""
    entry = directory.entries[tag]
    if entry.kind != LONG8:
        return entry.kind, directory.raw(tag)
    numbers = directory.values(tag, ())
    # An offset that does not fit lies outside the file, as does this one.
    fitting = [min(number, 0xFFFFFFFF) for number in numbers]
    return LONG, struct.pack(f"{directory.form.order}{len(fitting)}I", *fitting)


def damaged(what: str) -> InvalidImageError:
    return InvalidImageError(f"image: expected a complete TIFF file, got a damaged one: {what}")


def _read_directories(data: bytes, limits: StructureLimits) -> list[Directory]:
    form = Form("<" if data[:2] == b"II" else ">", is_big=b"+" in data[2:4])
    directories: list[Directory] = []
    seen: set[int] = set()
    entries_so_far = 0
    try:
        (offset,) = struct.unpack_from(form.offset, data, form.field_bytes)
        while offset and offset not in seen:
            if len(directories) == limits.max_tiff_directories:
                raise InvalidImageError(
                    f"image: expected at most {limits.max_tiff_directories} directories in a TIFF file"
                    " (max_tiff_directories), got more"
                )
            seen.add(offset)
            (count,) = struct.unpack_from(form.entry_count, data, offset)
            entries_so_far += count
            check_segments(entries_so_far, limits, "tags in a TIFF file")
            first = offset + struct.calcsize(form.entry_count)
            directories.append(_read_directory(data, form, first, count))
            link_at = first + count * struct.calcsize(form.entry)
            # Where the file ends with its last directory, some writers leave the closing zero out.
            ends = link_at + form.field_bytes > len(data)
            offset = 0 if ends else struct.unpack_from(form.offset, data, link_at)[0]
    except struct.error as error:
        if not directories:
            raise damaged("its first directory lies behind its end") from error
    if not directories:
        raise damaged("it has no directory")
    return directories


def _read_directory(data: bytes, form: Form, first: int, count: int) -> Directory:
    entries: dict[int, Entry] = {}
    for index in range(count):
        at = first + index * struct.calcsize(form.entry)
        tag, kind, values, field = struct.unpack_from(form.entry, data, at)
        # Of a tag that is there twice, the first one holds.
        entries.setdefault(tag, Entry(kind, values, field))
    return Directory(data, form, entries)


def _is_picture(directory: Directory) -> bool:
    try:
        kind = directory.value(NEW_SUBFILE_TYPE, 0)
        old_kind = directory.value(OLD_SUBFILE_TYPE, 0)
        photometric = directory.value(PHOTOMETRIC, 0)
    except InvalidImageError:
        return True
    return not (
        kind & (REDUCED | TRANSPARENCY)
        or old_kind == OLD_REDUCED
        or photometric == TRANSPARENCY_PHOTOMETRIC
    )
