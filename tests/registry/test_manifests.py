"""Documents of a registry: what they are, what is chosen of an index, what is an overlaybd image."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmu_overlaybd.errors import FormatError, MissingError, OverlayBDError, UnavailableError, UsageError
from tcmu_overlaybd.registry.client import RawManifest
from tcmu_overlaybd.registry.image_build import ImageBase, build_image
from tcmu_overlaybd.registry.image_lookup import choose, find_image
from tcmu_overlaybd.registry.manifests import Descriptor, Index, Manifest, PlatformRecord, parse_manifest
from tcmu_overlaybd.registry.media_types import DOCKER, OCI
from tcmu_overlaybd.registry.overlaybd_layers import PREFIX, RemoteLayer, recognise
from tcmu_overlaybd.registry.platforms import Platform
from tcmu_overlaybd.registry.reference import Reference

DIGESTS = ["sha256:" + digit * 64 for digit in "0123456789abcdef"]
AMD64, ARM64, ARM_V7 = (
    Platform("linux", "amd64"),
    Platform("linux", "arm64", "v8"),
    Platform("linux", "arm", "v7"),
)


def descriptor(number: int = 0, media_type: str = OCI.manifest, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "size": 10 + number, "digest": DIGESTS[number], **more}


def overlaybd(number: int, **more: str) -> dict[str, object]:
    """A layer's descriptor with the annotations of one."""
    annotations = {
        PREFIX + "version": "0.1.0",
        PREFIX + "blob-digest": DIGESTS[number],
        PREFIX + "blob-size": str(10 + number),
        **{PREFIX + key: value for key, value in more.items()},
    }
    return descriptor(number, OCI.layer, annotations=annotations)


def image(*layers: dict[str, object], **more: object) -> dict[str, object]:
    return {"schemaVersion": 2, "config": descriptor(15, OCI.config), "layers": list(layers), **more}


def index(*entries: dict[str, object], **more: object) -> dict[str, object]:
    return {"schemaVersion": 2, "manifests": list(entries), **more}


def parse(document: object, media_type: str = "") -> Manifest | Index:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_manifest(RawManifest(media_type, DIGESTS[0], body), "h/r:t")


# -- what a document is


@pytest.mark.parametrize("media_type", ["", OCI.manifest, DOCKER.manifest, "application/json"])
def test_an_image_is_known_by_its_members(media_type):
    assert isinstance(parse(image(overlaybd(1)), media_type), Manifest)


@pytest.mark.parametrize("media_type", ["", OCI.index, DOCKER.index])
def test_an_index_is_known_by_its_members(media_type):
    assert isinstance(parse(index(descriptor()), media_type), Index)


@pytest.mark.parametrize(
    ("document", "media_type", "complaint"),
    [
        (b"", "", "no JSON"),
        (b"\xff", "", "no JSON"),
        (b"[" * 100_000, "", "no JSON|no manifest"),
        ([], "", "Expected `object`"),
        ({}, "", "schemaVersion 0"),
        ({"schemaVersion": 2}, "", "no layers and no manifests"),
        ({**image(), **index()}, "", "layers and with manifests at once"),
        (image(), OCI.index, "do not fit its media type"),
        (index(), OCI.manifest, "do not fit its media type"),
        (image(mediaType=OCI.manifest), DOCKER.manifest, "calls itself"),
        (image({**descriptor(), "size": -1}), "", r"layers\[0\].size"),
        (image({**descriptor(), "size": 1 << 63}), "", r"layers\[0\].size"),
        (image({**descriptor(), "digest": "sha256:../../x"}), "", r"layers\[0\].digest"),
        (image({**descriptor(), "digest": "sha512:" + "0" * 128}), "", r"layers\[0\].digest"),
        (image({"mediaType": "x"}), "", r"layers\[0\]"),
        (image(*[descriptor()] * 5000), "", "layers"),
    ],
)
def test_a_document_that_breaks_a_rule_is_refused_with_the_rule(document, media_type, complaint):
    with pytest.raises(FormatError, match=complaint) as refused:
        parse(document, media_type)
    assert str(refused.value).startswith("h/r:t: ")


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, ""),
        ({"schemaVersion": 1}, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ],
)
def test_the_first_schema_is_not_read(document, media_type):
    with pytest.raises(UnavailableError, match="first schema"):
        parse(document, media_type)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["schemaVersion", "mediaType", "layers", "manifests", "config", "digest", "size"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.sampled_from(["", OCI.index, OCI.manifest, DOCKER.manifest]))
def test_any_json_is_a_document_or_an_error_of_ours(document, media_type):
    try:
        said = str(type(parse(document, media_type)))
    except OverlayBDError as error:
        said = str(error)
    assert said.startswith(("h/r:t: ", "<class "))


# -- platforms


def entry(number: int, platform: Platform | None, **more: object) -> Descriptor:
    record = platform and PlatformRecord(platform.architecture, platform.os, platform.variant)
    return Descriptor(OCI.manifest, 10, DIGESTS[number], platform=record, **more)


def test_the_entry_for_the_platform_is_chosen():
    entries = [entry(1, AMD64), entry(2, ARM64), entry(3, ARM_V7)]
    assert [choose(entries, wanted, "w").digest for wanted in (AMD64, ARM64, ARM_V7)] == DIGESTS[1:4]


def test_an_exact_variant_goes_before_one_that_fits():
    entries = [entry(1, Platform("linux", "arm64")), entry(2, ARM64)]
    assert choose(entries, ARM64, "w").digest == DIGESTS[2]
    assert choose(entries[:1], ARM64, "w").digest == DIGESTS[1]
    assert choose([entry(2, ARM64)], Platform("linux", "arm64"), "w").digest == DIGESTS[2]


def test_a_single_unmarked_entry_is_taken_for_anything():
    assert choose([entry(1, None)], AMD64, "w").digest == DIGESTS[1]
    with pytest.raises(MissingError):
        choose([entry(1, None), entry(2, None)], AMD64, "w")


def test_a_platform_that_is_not_there_is_missing_and_the_others_are_named():
    with pytest.raises(
        MissingError, match="w: nothing for linux/amd64, only for linux/arm/v7, linux/arm64/v8"
    ):
        choose([entry(1, ARM64), entry(2, ARM_V7)], AMD64, "w")
    with pytest.raises(MissingError, match="only for no platform at all"):
        choose([], AMD64, "w")


def test_attestations_and_other_things_in_an_index_are_no_images():
    note = descriptor(2, annotations={"vnd.docker.reference.type": "attestation-manifest"})
    found = parse(index(descriptor(1), note, descriptor(3, "application/x-other")))
    assert [one.digest for one in found.images] == DIGESTS[1:2]


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm64/v8", "Linux/ARM64"])
def test_platforms_are_written_as_elsewhere(text):
    assert str(Platform.parse(text)) == text.lower()


@pytest.mark.parametrize("text", ["", "linux", "a/b/c/d", "linux/", "linux/a b"])
def test_a_senseless_platform_is_a_usage_error(text):
    with pytest.raises(UsageError, match="not a platform"):
        Platform.parse(text)


class Documents:
    """A client's get_manifest over a dictionary."""

    def __init__(self, **documents: object) -> None:
        self.documents = {
            key.replace("_", ":"): json.dumps(value).encode() for key, value in documents.items()
        }
        self.asked: list[str] = []

    def get_manifest(self, repository: str, target: str, deadline: object) -> RawManifest:
        self.asked.append(target)
        return RawManifest("", target, self.documents[target])


def test_indexes_in_indexes_are_followed_but_not_for_ever(deadline):
    reference = Reference.parse("h.example/r")
    nested = Documents(latest=index(descriptor(1, OCI.index)))
    nested.documents[DIGESTS[1]] = json.dumps(index(descriptor(2))).encode()
    nested.documents[DIGESTS[2]] = json.dumps(image(overlaybd(3))).encode()
    assert find_image(nested, reference, deadline).digest == DIGESTS[2]
    assert nested.asked == ["latest", DIGESTS[1], DIGESTS[2]]
    nested.documents[DIGESTS[2]] = json.dumps(index(descriptor(1, OCI.index))).encode()
    with pytest.raises(FormatError, match=r"h\.example/r:latest: indexes lie in each other more than 3 deep"):
        find_image(nested, reference, deadline)


# -- overlaybd


def recognised(*layers: dict[str, object]):
    return recognise(parse(image(*layers)), "h/r:t")


def test_layers_are_recognised_lowest_first():
    found = recognised(overlaybd(1), overlaybd(2, **{"blob-fs-type": "xfs"}))
    assert found.layers == (RemoteLayer(DIGESTS[1], 11), RemoteLayer(DIGESTS[2], 12, "xfs"))
    assert found.acceleration is None


def test_the_trace_layer_on_top_is_no_data():
    found = recognised(overlaybd(1), overlaybd(2, **{"acceleration-layer": "yes"}))
    assert found.layers == (RemoteLayer(DIGESTS[1], 11),)
    assert found.acceleration == RemoteLayer(DIGESTS[2], 12)


@pytest.mark.parametrize(
    "layers", [[overlaybd(1), descriptor(2, OCI.layer)], [descriptor(2, DOCKER.layer + ".gzip")]]
)
def test_an_ordinary_image_is_told_how_to_become_one(layers):
    with pytest.raises(FormatError, match="this is an ordinary image: make an overlaybd one") as refused:
        recognised(*layers)
    assert str(refused.value).startswith(f"h/r:t: layer {len(layers)} of {len(layers)} ")


@pytest.mark.parametrize(
    "more",
    [
        {"turbo-oci/target-digest": DIGESTS[3]},
        {"fastoci/target-digest": DIGESTS[3]},
        {"version": "0.1.0-turbo.ociv1"},
        {"version": "0.1.0-fastoci"},
    ],
)
def test_turbo_oci_is_named_as_not_supported(more):
    with pytest.raises(UnavailableError, match="h/r:t: layer 1 of 1 is of turboOCI"):
        recognised(overlaybd(1, **more))


@pytest.mark.parametrize("more", [{"blob-digest": DIGESTS[2]}, {"blob-size": "12"}, {"blob-size": "011"}])
def test_annotations_that_contradict_the_descriptor_are_refused(more):
    with pytest.raises(FormatError, match="but its annotations say"):
        recognised(overlaybd(1, **more))


@pytest.mark.parametrize("layers", [[], [overlaybd(1, **{"acceleration-layer": "yes"})]])
def test_an_image_without_data_is_refused(layers):
    with pytest.raises(FormatError, match="without layers"):
        recognised(*layers)


# -- building

LAYERS = [RemoteLayer(DIGESTS[1], 11), RemoteLayer(DIGESTS[2], 12, "xfs"), RemoteLayer(DIGESTS[1], 11)]


@pytest.mark.parametrize("family", [DOCKER, OCI], ids=["docker", "OCI"])
def test_what_is_built_is_recognised(family):
    built = build_image(LAYERS, ImageBase.blank(ARM64, family), "why")
    document = parse_manifest(RawManifest(family.manifest, built.manifest_digest, built.manifest), "w")
    assert list(recognise(document, "w").layers) == LAYERS
    assert {layer.media_type for layer in document.layers} == {family.layer}
    assert (document.config.digest, document.config.size) == (built.config_digest, len(built.config))
    config = json.loads(built.config)
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer.digest for layer in LAYERS]}
    assert len(config["history"]) == 3
    assert (config["os"], config["architecture"], config["variant"]) == ("linux", "arm64", "v8")


def test_the_same_layers_give_the_same_bytes():
    base = ImageBase.blank(AMD64)
    assert build_image(LAYERS, base) == build_image(tuple(LAYERS), base)
    digest = "sha256:080395937f496295"
    assert build_image(LAYERS, base).manifest_digest[: len(digest)] == digest
