"""The kinds that checks.py allows and the functions that compute them are the same."""

from cliptrase.checks import KINDS, MATRICES
from cliptrase.model.own import OWN


def test_every_kind_that_may_be_asked_for_is_computed():
    assert set(KINDS) == {"softmax", "identity", *MATRICES, *OWN}
