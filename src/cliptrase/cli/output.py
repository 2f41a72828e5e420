"""What commands on results print: facts as JSON, or as lines for people."""

import json
from collections.abc import Iterable

from cliptrase.errors import is_read, printable


def tell(facts: object, lines: Iterable[str], *, as_json: bool) -> None:
    """Print `facts` as JSON, or the `lines` for as long as somebody reads them."""
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for line in lines:
        if not is_read():
            return
        print(printable(line))
