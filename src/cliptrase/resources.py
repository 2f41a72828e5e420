"""Where the files that ship with the project are: conf/, assets/ and published/."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(*parts: str) -> Path:
    """The path of a shipped file or folder, as in `resource("conf", "evaluate.yaml")`.

    A wheel carries them as `cliptrase/_share`; a checkout, and an editable install of one, has
    them at its root.
    """
    packed = _PACKAGE / "_share"
    return (packed if packed.is_dir() else _PACKAGE.parents[1]).joinpath(*parts)
