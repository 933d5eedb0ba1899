"""Which files a batch is about. An image is its path below the folder, and nothing less."""

import glob
import os
import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from triton_sam2._errors import InvalidInputError

# What people call pictures, also those that the server will refuse: leaving them out would go unnoticed.
_PICTURE_ENDINGS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
        *(".gif", ".heic", ".heif", ".avif", ".jp2"),
    )
)
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*")
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True)
class ImageFiles:
    """Files by name, which is the path below `folder`; `pictures` are the names that `*` stands for."""

    folder: Path
    files: dict[str, Path]
    pictures: list[str]

    def find_all(self, names: Iterable[str]) -> dict[str, str]:
        """The files that the names of a prompts file mean; those without a file are left out.

        All names count from the folder. Only if none of them does, they may count from a parent of it, as
        annotation files often do (`train/1.png` for the folder `train`): then all of a name has to agree with
        the file's path.
        """
        listed = list(names)
        for find in (self._below_folder, self._below_parent):
            found = {name: file for name in listed if (file := find(name)) is not None}
            if found:
                return found
        return {}

    def _below_folder(self, name: str) -> str | None:
        for spelling in (name, name.replace("\\", "/")):
            normal = posixpath.normpath(spelling)
            if normal in self.files:
                return normal
        return None

    def _below_parent(self, name: str) -> str | None:
        folder = Path(os.path.abspath(self.folder)).parts  # noqa: PTH100 - links stay what they are
        parts = Path(posixpath.normpath(name.replace("\\", "/"))).parts
        found = {
            posixpath.join(*parts[length:])
            for length in range(1, min(len(parts), len(folder) + 1))
            if parts[:length] == folder[-length:]
        } & self.files.keys()
        return found.pop() if len(found) == 1 else None

    def missing(self, name: str) -> InvalidInputError:
        """The error for a name without a file, with what may have been meant."""
        plain = _plain(name)
        similar = [
            other
            for other in self.files
            if _plain(other) == plain or posixpath.basename(other) == posixpath.basename(name)
        ]
        hint = f"; it has {similar[0]!r}, which is another path" if similar else ""
        return InvalidInputError(f"image: {self.folder} has no file {name!r}{hint}")


def find_images(source: str, is_own: Callable[[Path], bool] = lambda _path: False) -> ImageFiles:
    """The files of a folder, of a glob pattern, or one file; without a batch's own (`is_own`).

    A name is the path below the folder, or below the pattern's part before its first wildcard. Hidden files,
    and others than pictures, are found by their name only.
    """
    path = Path(source).expanduser()
    # Path's own questions raise at names that are too long, and those may well be asked here.
    is_single = os.path.isfile(path)  # noqa: PTH113
    if os.path.isdir(path):  # noqa: PTH112
        folder, found = path, _walk(path, is_own)
    elif is_single:
        folder, found = path.parent, iter([path])
    else:
        folder = _fixed_part(path)
        found = _glob(folder, path)
    files = {
        file.relative_to(folder).as_posix(): file
        for file in found
        if file.is_file() and not is_own(file)
    }
    if not files:
        raise InvalidInputError(f"images: no file matches {source!r}")
    files = dict(sorted(files.items()))
    pictures = [name for name, file in files.items() if is_single or _is_picture(name, file)]
    return ImageFiles(folder, files, pictures)


def _walk(
    folder: Path, is_own: Callable[[Path], bool], above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Path]:
    """All files below a folder, also behind links, but for links back to a folder above."""
    try:
        status = folder.stat()
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InvalidInputError(f"images: cannot read {folder}: {error.strerror}") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if not entry.is_dir():
            yield entry
        elif not is_own(entry):
            yield from _walk(entry, is_own, above | {here})


def _fixed_part(pattern: Path) -> Path:
    """The folder that a pattern's matches lie below; brackets in a folder's real name are no wildcard."""
    fixed = Path()
    for part in pattern.parts[:-1]:
        if _WILDCARDS & set(part) and not (fixed / part).is_dir():
            break
        fixed /= part
    return fixed


def _glob(folder: Path, pattern: Path) -> Iterator[Path]:
    inner = str(pattern.relative_to(folder))
    # Unlike Path's, it follows links to folders and leaves hidden files out, as shells do.
    for match in glob.iglob(inner, root_dir=folder, recursive=True):  # noqa: PTH207
        # `**` follows links, and so a link to a folder above it again and again.
        parents = [os.path.realpath(folder / parent) for parent in Path(match).parents]
        if len(set(parents)) == len(parents):
            yield folder / match


def _is_picture(name: str, file: Path) -> bool:
    if any(part.startswith(".") for part in Path(name).parts):
        return False
    if file.suffix.lower() in _PICTURE_ENDINGS:
        return True
    try:
        with file.open("rb") as content:
            start = content.read(12)
    except OSError:
        return False  # neither by name nor by content; whoever means it says so in the prompts file
    is_webp = start[:4] == b"RIFF" and start[8:] == b"WEBP"
    is_bmp = start[:2] == b"BM" and start[6:10] == bytes(4)  # two letters alone may begin a text
    return start.startswith(_SIGNATURES) or is_webp or is_bmp


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
