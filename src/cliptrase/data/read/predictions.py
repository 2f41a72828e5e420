"""Label maps that any code predicted: a folder of PNG, TIFF or npy files named by image id, or an
npz of arrays by image id."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliptrase.data.read.images import decoding, read_header, read_label
from cliptrase.errors import UserError, counted, nearest
from cliptrase.files import known_sha256

SUFFIXES = (".png", ".tif", ".tiff", ".npy")
ARRAYS = ".npz"
FEW = 3  # names in a message


def predictions_digest(path: Path) -> str:
    """sha256 of the label maps at `path`: of a folder over the names and contents of its files, of
    an npz its own. Raises UserError where there are none."""
    if path.suffix == ARRAYS and path.is_file():
        return known_sha256(path)
    try:
        lines = [f"{place}\0{known_sha256(file)}\n" for place, file in _files(path).items()]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


class Predictions:
    """The label maps at `path`, paired with the ids of a dataset. Threads may read at once.

    In a folder, `id.png` belongs to the image `id`; of files in subfolders that no id is named
    like, the file's own name counts. all_ids: whether `ids` are all of the dataset's, so that a
    label map of another name is a mistake.

    Raises UserError naming the file: no label map, one of no image, two of one image.
    """

    def __init__(self, path: Path, ids: Sequence[str], *, all_ids: bool = True) -> None:
        self.path, wanted = path, set(ids)
        self._arrays = _opened(path) if path.suffix == ARRAYS and path.is_file() else None
        self._files: dict[str, Path] = {}
        strange = list[str]()
        if self._arrays is not None:
            self._keys = frozenset(self._arrays.files)
            strange = sorted(self._keys - wanted)
        else:
            for place, file in _files(path).items():
                id = place.rpartition(".")[0]
                id = id if id in wanted else file.stem
                if id not in wanted:
                    strange.append(place)
                elif (other := self._files.setdefault(id, file)) is not file:
                    raise UserError(f"{file}: {other} is a label map of image {id} too; keep one")
            self._keys = frozenset(self._files)
        if strange and all_ids:
            more = f" (nor are {len(strange) - 1} more)" if strange[1:] else ""
            near = nearest(Path(strange[0]).stem, ids).partition(" There is:")[0]
            near = near if near.startswith("did") else f"ids are as {', '.join(ids[:FEW])}"
            raise UserError(
                f"{path}: {strange[0]} is named by no image of the dataset{more}; {near}; take it "
                "out, or name it as its image"
            )

    def __contains__(self, id: str) -> bool:
        return id in self._keys

    def name(self, id: str) -> str:
        """Where the label map of an image lies, or would."""
        if self._arrays is not None:
            return f"{self.path}, array {id}"
        return str(self._files.get(id, self.path / f"{id}.png"))

    def read(self, id: str) -> tuple[NDArray[np.integer], int]:
        """The label map (H, W) of an image, as it is stored, and how many bits a label has. Raises
        UserError naming its file: damaged, colours, floating-point numbers."""
        name, file = self.name(id), self._files.get(id)
        if file is not None and file.suffix.lower() != ".npy":
            return read_label(file, as_stored=True), read_header(file).bits
        with decoding(name):
            try:
                labels: NDArray[np.integer] = (
                    np.load(file, allow_pickle=False) if file else self._array(id)
                )
            except zipfile.BadZipFile as error:
                raise UserError(f"{name}: damaged ({error}); write it again") from error
        if labels.ndim != 2 or labels.dtype.kind not in "iu":
            raise UserError(
                f"{name}: an array of shape {labels.shape} and type {labels.dtype}; give class "
                "indices, whole numbers of shape (H, W)"
            )
        return labels, 8 * labels.dtype.itemsize

    def _array(self, id: str) -> NDArray[np.integer]:
        assert self._arrays is not None
        return np.asarray(self._arrays[id])


def _files(folder: Path) -> dict[str, Path]:
    """The label maps below a folder by their place in it, sorted."""
    where = f"method.path={folder}"
    if not folder.is_dir():
        kind = f"a file, but no {ARRAYS}" if folder.exists() else "no such file or folder"
        raise UserError(f"{where}: {kind}; give a folder of label maps, or an npz of arrays")
    there = [file for file in folder.rglob("*") if file.is_file() and file.name[0] != "."]
    files = sorted(file for file in there if file.suffix.lower() in SUFFIXES)
    if not files:
        others = sorted({file.suffix for file in there} - {""})
        hint = f"; it holds {counted(len(there), 'file')} of {', '.join(others[:FEW])}"
        raise UserError(f"{where}: no label map in it ({', '.join(SUFFIXES)})" + hint * bool(there))
    return {file.relative_to(folder).as_posix(): file for file in files}


def _opened(path: Path) -> "np.lib.npyio.NpzFile":
    """An npz, whose arrays are read when they are asked for."""
    with decoding(str(path)):
        try:
            arrays = np.load(path, allow_pickle=False)
        except zipfile.BadZipFile as error:
            raise UserError(f"{path}: damaged ({error}); write it again") from error
    if not isinstance(arrays, np.lib.npyio.NpzFile) or not arrays.files:
        raise UserError(f"{path}: no npz with arrays; write it with numpy.savez, one array a map")
    return arrays
