"""Methods that are label maps in files (`method.path`): no network is loaded, so none is named."""

from pathlib import Path

from cliptrase.config.files import Tree
from cliptrase.config.method import BackboneNames
from cliptrase.config.schema import Model
from cliptrase.config.validation import path as path_text
from cliptrase.config.written import text_of
from cliptrase.errors import UserError

NO_MODEL = Model(
    label="none",
    kind="none",
    name=None,
    pretrained=None,
    path=None,
    patch=1,  # pixels: label maps are of any size
    depth=12,
    weights_sha256=None,
    config_sha256=None,
    substitutes=BackboneNames(),
)
UNREAD: Tree = {  # what the schema asks of a method, and no label map reads
    "attention": {
        "kind": "softmax",
        "terms": ["qk"],
        "first_block": 12,
        "last_block": 12,
        "residual": True,
        "ffn": True,
    },
    "regions": None,
    "cls_logits": False,
}


def is_predicted(method: Tree) -> bool:
    """Whether a method's tree names label maps."""
    return method.get("path") is not None


def with_digest(method: Tree) -> Tree:
    """A method's tree with the digest of the label maps at its `path`; one without a path comes
    back as it is. Raises UserError for a path without label maps, and for keys of networks."""
    if not is_predicted(method):
        return method
    from cliptrase.data.read.predictions import predictions_digest  # NumPy: not for other runs

    if others := sorted(method.keys() - {"name", "path"}):
        raise UserError(
            f"method.{others[0]}={text_of(method[others[0]])}: with method.path no network "
            "computes anything; leave it out of the method's file"
        )
    try:
        path = path_text(method["path"])
    except ValueError as error:
        raise UserError(f"method.path={method['path']}: {error}") from None
    digest = predictions_digest(Path(str(path)))
    absolute = str(Path(str(path)).absolute())
    return {**method, **UNREAD, "path": absolute, "digest": digest}
