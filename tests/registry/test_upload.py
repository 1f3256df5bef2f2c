"""Uploads: what is there is not sent again, and a broken one goes on where it was."""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import closing
from urllib.parse import parse_qs, urlsplit

import pytest

from tcmu_overlaybd.errors import AuthenticationError, CorruptError, UnavailableError
from tcmu_overlaybd.registry.blob_sources import BytesBlob, FileBlob
from tcmu_overlaybd.registry.credentials import Credential
from tcmu_overlaybd.registry.deadline import Deadline
from tcmu_overlaybd.registry.kept_uploads import MAX_AGE_S, KeptUploads
from tcmu_overlaybd.registry.upload import MAX_SETBACKS, Outcome, Uploader
from tests.registry import http_faults as faults
from tests.registry.fixtures import ANNA
from tests.registry.http_faults import Answer
from tests.registry.images import Blob, random_blob
from tests.registry.scripted_server import ScriptedServer, Seen

KINDS = ["open_registry", "password_registry", "token_registry"]
BLOB = random_blob(1_000_000, 4)
START = "/v2/r/blobs/uploads/"
PLACE = "/upload/1"
DONE = f"/v2/r/blobs/{BLOB.digest}"


class UploadServer:
    """The registry's side of an upload, in memory: honest, the faults are the server's."""

    def __init__(self, server: ScriptedServer, blob: Blob = BLOB) -> None:
        self.server = server
        self.received = bytearray()
        self.is_stored = False
        self.blob = blob
        self.nr_sessions = 0
        server.respond(START, self.start)
        server.respond(PLACE, self.go_on)
        server.respond(f"/v2/r/blobs/{blob.digest}", self.blob_answer)

    def start(self, seen: Seen) -> Answer:
        self.nr_sessions += 1
        self.received.clear()
        return Answer(202, {"Location": PLACE + "?state=1"})

    def go_on(self, seen: Seen) -> Answer:
        if seen.method == "PATCH":
            first = int(seen.headers["content-range"].partition("-")[0])
            if first != len(self.received):
                return Answer(416)
            self.received += seen.body
        if seen.method == "PUT":
            digest = parse_qs(urlsplit(seen.target).query)["digest"][0]
            if f"sha256:{hashlib.sha256(self.received).hexdigest()}" != digest:
                return Answer(400, {}, b'{"errors": [{"message": "provided digest did not match"}]}')
            self.is_stored = True
            return Answer(201)
        said = {"Range": f"0-{max(0, len(self.received) - 1)}", "Location": PLACE + "?state=2"}
        return Answer(204 if seen.method == "GET" else 202, said)

    def blob_answer(self, seen: Seen) -> Answer:
        return Answer(200, {}, self.blob.data) if self.is_stored else Answer(404)

    def methods(self) -> list[str]:
        return [seen.method for seen in self.server.seen if seen.path in (START, PLACE)]


@pytest.fixture
def registry(server):
    return UploadServer(server)


@pytest.fixture
def uploader(server, registry, client_of):
    return Uploader(client_of(server.host, scheme="http"), "r", chunk_size=300_000)


@pytest.fixture
def soon():
    return Deadline.after(30)


def test_a_blob_goes_up_in_chunks(registry, uploader, soon):
    told = []
    outcome = uploader.upload(BLOB.digest, BytesBlob(BLOB.data), soon, progress=lambda *now: told.append(now))
    assert outcome is Outcome.UPLOADED
    assert bytes(registry.received) == BLOB.data
    assert registry.methods() == ["POST", "PATCH", "PATCH", "PATCH", "PATCH", "PUT"]
    ranges = [seen.headers["content-range"] for seen in registry.server.seen if seen.method == "PATCH"]
    assert ranges == ["0-299999", "300000-599999", "600000-899999", "900000-999999"]
    assert [done for done, _ in told] == [300_000, 600_000, 900_000, 1_000_000, 1_000_000]
    assert {total for _, total in told} == {1_000_000}


def test_a_blob_that_is_there_is_not_sent(registry, uploader, soon):
    registry.is_stored = True
    assert uploader.upload(BLOB.digest, BytesBlob(BLOB.data), soon) is Outcome.PRESENT
    assert registry.methods() == []


BREAKS = [
    faults.HangUp(reset=True),
    faults.Status(503),
    faults.Status(500),
    faults.Delay(0.01, faults.HangUp()),
]


@pytest.mark.parametrize("fault", BREAKS, ids=repr)
@pytest.mark.parametrize("at", range(6))
def test_a_broken_upload_goes_on(server, registry, uploader, soon, fault, at):
    """at: the request of the session that is answered badly, after the registry has taken its body."""
    if at == 0:
        server.fault(START, fault)
    else:
        server.fault(PLACE, *[HONEST] * (at - 1), fault)
    assert uploader.upload(BLOB.digest, BytesBlob(BLOB.data), soon) is Outcome.UPLOADED
    assert registry.is_stored
    assert bytes(registry.received) == BLOB.data
    # No more was sent than the chunk that broke, and none of it twice.
    assert registry.methods().count("PATCH") == 4


class Honest(faults.Fault):
    def answer(self, handler, truth):
        handler.send(truth)


HONEST = Honest()


class Forgets(faults.Fault):
    """404, and the session is gone."""

    def answer(self, handler, truth):
        handler.send(Answer(404))


def test_a_forgotten_session_begins_anew(server, registry, uploader, soon):
    server.fault(PLACE, HONEST, faults.HangUp(), Forgets())
    assert uploader.upload(BLOB.digest, BytesBlob(BLOB.data), soon) is Outcome.UPLOADED
    assert registry.nr_sessions == 2
    assert bytes(registry.received) == BLOB.data


def test_an_upload_that_gets_nowhere_ends(server, registry, uploader, soon):
    server.always(PLACE, faults.Status(503))
    with pytest.raises(UnavailableError, match=rf"{server.host}/r: uploading blob {BLOB.digest}: .*503"):
        uploader.upload(BLOB.digest, BytesBlob(BLOB.data), soon)
    assert len(registry.methods()) <= 3 * (MAX_SETBACKS + 2)


def test_an_upload_ends_at_its_deadline(server, registry, uploader):
    server.always(PLACE, faults.Stall())
    with pytest.raises(UnavailableError):
        uploader.upload(BLOB.digest, BytesBlob(BLOB.data), Deadline.after(0.5))


def test_other_bytes_than_the_digest_says_are_corrupt(registry, uploader, soon):
    with pytest.raises(CorruptError, match="provided digest did not match"):
        uploader.upload(BLOB.digest, BytesBlob(BLOB.data[:-1] + b"x"), soon)


def test_a_file_that_becomes_shorter_is_corrupt(tmp_path, registry, uploader, soon):
    path = tmp_path / "layer"
    path.write_bytes(BLOB.data)
    with FileBlob(path) as blob:
        path.write_bytes(b"short")
        with pytest.raises(CorruptError, match="became shorter"):
            uploader.upload(BLOB.digest, blob, soon)


def test_a_session_elsewhere_gets_no_password(server, registry, client_of, soon):
    with ScriptedServer() as other:
        twin = UploadServer(other)
        server.fault(START, faults.Status(202, {"Location": f"{other.url}{PLACE}"}))
        server.fault(DONE, faults.unauthorized("Basic"))
        uploader = Uploader(client_of(server.host, ANNA, scheme="http"), "r")
        uploader.upload(BLOB.digest, BytesBlob(BLOB.data), soon)
        assert bytes(twin.received) == BLOB.data
        assert server.headers_seen("Authorization")
        assert not other.headers_seen("Authorization")


# -- real registries


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 2, 299_999, 300_000, 300_001, 2_000_000])
def test_blobs_of_every_length_arrive(request, client_of, repository, soon, kind, size):
    client = client_of(request.getfixturevalue(kind).host, ANNA)
    blob = random_blob(size, size)
    uploader = Uploader(client, repository, chunk_size=300_000)
    assert uploader.upload(blob.digest, BytesBlob(blob.data), soon) is Outcome.UPLOADED
    assert uploader.upload(blob.digest, BytesBlob(blob.data), soon) is Outcome.PRESENT
    assert client.get_blob(repository, blob.digest, size, soon) == blob.data


@pytest.mark.parametrize("kind", KINDS)
def test_a_blob_of_another_repository_is_mounted(request, client_of, repository, soon, kind):
    registry = request.getfixturevalue(kind)
    client = client_of(registry.host, ANNA)
    blob = random_blob(500_000, 77)
    Uploader(client, f"{repository}/from").upload(blob.digest, BytesBlob(blob.data), soon)
    before = len(patches(registry))
    outcome = Uploader(client, f"{repository}/to").upload(
        blob.digest, BytesBlob(blob.data), soon, mount_from=f"{repository}/from"
    )
    assert outcome is Outcome.MOUNTED
    assert len(patches(registry)) == before
    assert client.head_blob(f"{repository}/to", blob.digest, soon) == len(blob.data)


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_mounted_is_uploaded(request, client_of, repository, soon, kind):
    client = client_of(request.getfixturevalue(kind).host, ANNA)
    blob = random_blob(5_000, 78 + KINDS.index(kind))
    uploader = Uploader(client, repository)
    outcome = uploader.upload(blob.digest, BytesBlob(blob.data), soon, mount_from="t/nowhere")
    assert outcome is Outcome.UPLOADED
    assert client.get_blob(repository, blob.digest, 5_000, soon) == blob.data


def patches(registry) -> list[str]:
    return re.findall(r'"PATCH /v2/[^"]*"', registry.log.read_text())


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("credential", [None, Credential("anna", "wrong")], ids=["nobody", "wrong password"])
def test_who_may_not_push_is_refused(request, client_of, repository, soon, kind, credential):
    uploader = Uploader(client_of(request.getfixturevalue(kind).host, credential), repository)
    with pytest.raises(AuthenticationError):
        uploader.upload(BLOB.digest, BytesBlob(BLOB.data), soon)


def test_anonymous_pull_is_not_push(tmp_path, client_of, repository, soon):
    from tests.registry.docker_registry import DockerRegistry
    from tests.registry.fixtures import USERS
    from tests.registry.token_service import TokenService

    with (
        TokenService(tmp_path / "tokens", USERS, anonymous_pull=True) as service,
        DockerRegistry(tmp_path / "registry", token=service) as registry,
    ):
        Uploader(client_of(registry.host, ANNA), repository).upload(BLOB.digest, BytesBlob(BLOB.data), soon)
        nobody = client_of(registry.host)
        assert nobody.get_blob(repository, BLOB.digest, len(BLOB.data), soon) == BLOB.data
        other = random_blob(10, 99)
        with pytest.raises(AuthenticationError):
            Uploader(nobody, repository).upload(other.digest, BytesBlob(other.data), soon)


# -- sessions that outlive a process


class BrokenBlob(BytesBlob):
    """Ends the upload at an offset, as a killed process does."""

    def __init__(self, data: bytes, at: int) -> None:
        super().__init__(data)
        self._at = at

    def read(self, offset: int, length: int) -> bytes:
        if offset >= self._at:
            raise KeyboardInterrupt
        return super().read(offset, length)


@pytest.fixture
def kept(tmp_path):
    return KeptUploads(tmp_path / "uploads")


@pytest.fixture
def keeping(client_of, kept):
    def make(host: str, repository: str = "r") -> Uploader:
        return Uploader(client_of(host, ANNA), repository, chunk_size=300_000, kept=kept)

    return make


def break_off(uploader: Uploader, deadline: Deadline, at: int = 600_000) -> None:
    with pytest.raises(KeyboardInterrupt):
        uploader.upload(BLOB.digest, BrokenBlob(BLOB.data, at), deadline)


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_process_goes_on_where_one_was_killed(request, keeping, repository, soon, kind):
    registry = request.getfixturevalue(kind)
    break_off(keeping(registry.host, repository), soon)
    before = len(patches(registry))
    blob = BytesBlob(BLOB.data)
    assert keeping(registry.host, repository).upload(BLOB.digest, blob, soon) is Outcome.UPLOADED
    assert len(patches(registry)) - before == 2


def test_nothing_is_kept_of_what_is_done(server, registry, keeping, tmp_path, soon):
    break_off(keeping(server.host), soon)
    files = list((tmp_path / "uploads").iterdir())
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600]
    keeping(server.host).upload(BLOB.digest, BytesBlob(BLOB.data), soon)
    assert not list((tmp_path / "uploads").iterdir())


@pytest.mark.parametrize(
    "fault",
    [Forgets(), faults.Status(400), faults.Status(403), faults.Status(500), faults.HangUp()],
    ids=["404", "400", "403", "500", "hang-up"],
)
def test_a_kept_session_that_is_gone_begins_anew(server, registry, keeping, soon, fault):
    break_off(keeping(server.host), soon)
    server.fault(PLACE, fault)
    outcome = keeping(server.host).upload(BLOB.digest, BytesBlob(BLOB.data), soon)
    assert outcome is Outcome.UPLOADED
    assert registry.nr_sessions == 2


def test_a_session_in_use_is_left_to_its_user(server, registry, keeping, kept, soon):
    break_off(keeping(server.host), soon)
    with closing(kept.open(f"{server.host}/r@{BLOB.digest}")) as busy:
        assert busy.url
        keeping(server.host).upload(BLOB.digest, BytesBlob(BLOB.data), soon)
    assert registry.nr_sessions == 2


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"url": 3}', b"[]"], ids=repr)
def test_damaged_memory_is_none(server, registry, keeping, tmp_path, soon, content):
    break_off(keeping(server.host), soon)
    (file,) = (tmp_path / "uploads").iterdir()
    file.write_bytes(content)
    keeping(server.host).upload(BLOB.digest, BytesBlob(BLOB.data), soon)
    assert registry.nr_sessions == 2


def test_a_folder_that_cannot_be_made_costs_nothing(server, registry, client_of, tmp_path, soon):
    (tmp_path / "file").touch()
    kept = KeptUploads(tmp_path / "file" / "uploads")
    uploader = Uploader(client_of(server.host, scheme="http"), "r", kept=kept)
    assert uploader.upload(BLOB.digest, BytesBlob(BLOB.data), soon) is Outcome.UPLOADED


def test_old_memory_is_removed(kept, tmp_path):
    for name, age_s in (("old", MAX_AGE_S + 60), ("new", 60)):
        file = tmp_path / "uploads" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (time.time() - age_s,) * 2)
    kept.forget_old()
    assert [file.name for file in (tmp_path / "uploads").iterdir()] == ["new.json"]
