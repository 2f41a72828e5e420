"""A benchmark over a prepared dataset, or over a folder of pictures and masks."""

from pathlib import Path
from typing import Any

from cliptrase.config.schema import Benchmark, FolderFiles
from cliptrase.config.validation import validated
from cliptrase.errors import UserError, nearest
from cliptrase.files import known_sha256


def describe_benchmark(content: Any) -> Benchmark:
    """A benchmark over a prepared dataset, or over a folder, whose files are looked at."""
    if not isinstance(content, dict):
        return validated(Benchmark, content, "benchmark")
    is_folder = content.get("dataset") == "folder"
    keys = Benchmark.model_fields | (FolderFiles.model_fields if is_folder else {})
    for key in content:
        if key not in keys or key == "folder":  # which is made here
            hint = nearest(str(key), keys.keys() - {"folder"})
            raise UserError(f"unknown key 'benchmark.{key}'; {hint}")
    if not is_folder:
        return validated(Benchmark, content, "benchmark")
    from cliptrase.data.read.folder import folder_digest, ignore_value

    given = {key: content[key] for key in FolderFiles.model_fields if key in content}
    rest = {key: value for key, value in content.items() if key not in given}
    place = validated(FolderFiles, given, "benchmark")
    files = (Path(place.images), Path(place.labels), place.image, place.mask)
    background = None if content.get("background") is None else "ignored"
    usual = 65535
    if place.colours is None:
        try:
            usual = ignore_value(*files[1:])
        except UserError:
            if place.ignore is None:  # what may cure it
                raise
    ignored = None if place.ignore == usual else place.ignore
    scored = {
        "map": place.map,
        "ignore": usual if ignored is None else 65535,
        "background": background,
        "reduce_zero_label": place.reduce_zero_label,
        "ignored": ignored,
    }
    folder = {
        "images_path": str(files[0].absolute()),
        "labels_path": str(files[1].absolute()),
        "image": place.image,
        "mask": place.mask,
        "digest": folder_digest(*files),
        "orientation": place.orientation,
    }
    if place.colours is not None:
        table = Path(place.colours).absolute()
        try:
            folder |= {"colours_path": str(table), "colours": known_sha256(table)}
        except OSError as error:
            raise UserError(
                f"benchmark.colours={table}: cannot be read ({error.strerror}); give a text file "
                "of R,G,B,class a line"
            ) from error
    return validated(Benchmark, rest | {"labels": scored, "folder": folder}, "benchmark")
