"""Networks beside CLIP from the hub: the cache first, the sha256 before anything reads the file."""

import hashlib

import pytest

from cliptrase.config.backbones import described
from cliptrase.errors import UserError
from cliptrase.model import hub

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def network():
    return described("sam_vit_b").model_copy(update={"weights_sha256": SHA256})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """cache(commit, content): a state of the repository, as the hub's library keeps it."""

    def kept(commit, content, *names):
        folder = tmp_path / "snapshots" / commit
        folder.mkdir(parents=True)
        for name in names or ("config.json", "model.safetensors"):
            blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
            blob.parent.mkdir(exist_ok=True)
            blob.write_bytes(content)
            (folder / name).symlink_to(blob)
        return folder

    def look(repository, name):
        found = sorted(tmp_path.glob(f"snapshots/*/{name}"))
        return str(found[-1]) if found and repository == "facebook/sam-vit-base" else None

    monkeypatch.setattr(hub.huggingface_hub, "try_to_load_from_cache", look)
    return kept


@pytest.fixture
def asked(monkeypatch):
    """The files that the hub was asked for; it has none of them."""
    names = []

    def download(repository, name):
        names.append(name)
        raise OSError("no route to host")

    monkeypatch.setattr(hub.huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(hub.socket, "getaddrinfo", lambda *address: [])
    return names


def test_what_is_cached_is_not_asked_for(network, cache, asked):
    assert not hub.is_cached(network)
    folder = cache("a", CONTENT)
    assert hub.is_cached(network)
    assert hub.folder_of(network) == folder and asked == []


def test_weights_of_another_content_are_refused(network, cache, asked):
    """A damaged file is to be deleted; a file that the hub replaced would only come again."""
    folder = cache("a", CONTENT)
    (folder / "model.safetensors").resolve().write_bytes(b"damaged")
    with pytest.raises(UserError, match=f"not {SHA256}; delete it and run again"):
        hub.folder_of(network)


def test_weights_that_the_hub_replaced_are_said_to_be(network, cache, asked):
    cache("a", b"newer")
    with pytest.raises(UserError, match=r"the hub's file is not the one .* method\.sam=local-dir"):
        hub.folder_of(network)


def test_without_a_digest_the_cache_says_which_file_it_is(network, cache, asked):
    unknown = network.model_copy(update={"weights_sha256": None})
    folder = cache("a", CONTENT)
    assert hub.folder_of(unknown) == folder
    (folder / "model.safetensors").resolve().write_bytes(b"damaged, and longer")
    with pytest.raises(UserError, match="delete it and run again"):
        hub.folder_of(unknown)


def test_without_network_and_cache_the_cure_is_a_folder(network, cache, asked):
    with pytest.raises(UserError) as caught:
        hub.folder_of(network)
    for word in ("config.json of sam_vit_b", "no route to host", "method.sam=local-dir:DIR"):
        assert word in str(caught.value)
    assert asked == ["config.json"]


def test_files_of_two_states_of_the_repository_are_not_mixed(network, cache, asked):
    cache("a", CONTENT, "config.json")
    cache("b", CONTENT, "model.safetensors")
    with pytest.raises(UserError, match="cannot be fetched"):
        hub.folder_of(network)
    assert asked == ["config.json"]
