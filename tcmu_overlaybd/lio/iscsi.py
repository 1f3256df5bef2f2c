"""An iSCSI target of a device of its own, through which other machines have it as a disk.

What is asked of LIO is asked by a process of its own (``iscsi_process``, which uses rtslib),
for the reason that ``helper`` has one: to disable or to remove a target can sleep where no
signal reaches.  Names and passwords go there by its standard input, since a command line
is for every user to read.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import string
import sys
from dataclasses import dataclass
from typing import Self

import msgspec

from tcmu_overlaybd.errors import UsageError
from tcmu_overlaybd.lio.helper import HelperReport, run_program

DEFAULT_ADDRESS = "127.0.0.1"
DEFAULT_PORT = 3260
# What is neither is an IPv6 address without a port, or nothing.
PORTAL = re.compile(r"\[(?P<v6>[^\]]*)\](?::(?P<p6>\d{1,5}))?|(?P<v4>[^:\[\]]+)(?::(?P<p4>\d{1,5}))?")
AUTHORITY = "iqn.2026-11.org.tcmu-overlaybd"
INITIATOR = re.compile(
    r"(iqn\.[0-9]{4}-[01][0-9]\.[a-z0-9.:-]+|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32})"
)
CHAP_USER = re.compile("[!-~]{1,255}")
# RFC 7143, 9.2.1: not shorter than 96 bits.  No blanks: LIO and its friends cut them off.
CHAP_PASSWORD = re.compile("[!-~]{12,255}")
PASSWORD_LENGTH = 16  # the longest that every initiator takes
MODULE = "tcmu_overlaybd.lio.iscsi_process"


class Chap(msgspec.Struct, frozen=True):
    """What an initiator must know.  Its password appears in no text but the JSON of a request."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Chap(user={self.user!r})"

    @classmethod
    def generate(cls, user: str) -> Self:
        letters = string.ascii_letters + string.digits
        return cls(user, "".join(secrets.choice(letters) for _ in range(PASSWORD_LENGTH)))

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """``USER:PASSWORD``.  Raises UsageError, which does not show text."""
        user, colon, password = text.strip().partition(":")
        if not colon:
            raise UsageError(f"{where}: not USER:PASSWORD")
        chap = cls(user, password)
        chap.check()
        return chap

    def check(self) -> None:
        """Raises UsageError for what LIO or an initiator would not take."""
        if not CHAP_USER.fullmatch(self.user) or self.user == "NULL":
            raise UsageError("CHAP: the user's name has 1 to 255 printable characters, without blanks")
        if not CHAP_PASSWORD.fullmatch(self.password):
            raise UsageError("CHAP: a password has 12 to 255 printable characters, without blanks")


@dataclass(frozen=True, slots=True)
class Portal:
    """Where a target listens."""

    address: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """``ADDRESS[:PORT]``, an IPv6 address in brackets when a port follows; "" is this machine only.

        Raises UsageError; a host's name is none, since it may mean another address tomorrow.
        """
        match = PORTAL.fullmatch(text or DEFAULT_ADDRESS)
        host = (match["v6"] or match["v4"]) if match else text
        port = int(match["p6"] or match["p4"] or DEFAULT_PORT) if match else DEFAULT_PORT
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise UsageError(f"portal {text!r}: not an IP address, or ADDRESS:PORT") from None
        if not 0 < port < 1 << 16:
            raise UsageError(f"portal {text!r}: port {port} is not possible")
        return cls(str(address), port)

    @property
    def is_loopback(self) -> bool:
        """Whether nobody outside of this machine reaches it."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def host(self) -> str:
        """The address as it stands before ``:PORT``."""
        return f"[{self.address}]" if ":" in self.address else self.address

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class IscsiTarget:
    """initiator: the one that may log in; "" is everyone who knows the password."""

    iqn: str
    portal: Portal
    initiator: str = ""

    @classmethod
    def of_device(cls, name: str, serial: str, portal: Portal, initiator: str = "") -> Self:
        """The name is for people, the serial number makes it the only one of its kind."""
        readable = re.sub("[^a-z0-9.-]", "-", name.lower())
        return cls(f"{AUTHORITY}:{readable}.{serial[:8]}", portal, initiator)


def check_initiator(text: str) -> str:
    """text, when it is an initiator's name, or "".  Raises UsageError."""
    if text and not INITIATOR.fullmatch(text):
        raise UsageError(f"initiator {text!r}: not an iSCSI name, such as iqn.1993-08.org.debian:01:ab12")
    return text


class ExportRequest(msgspec.Struct, frozen=True, tag="export"):
    """deadline_s: seconds that the process has; hba_number: N of ``core/user_N``."""

    deadline_s: float
    iqn: str
    host: str
    port: int
    initiator: str
    chap: Chap | None
    hba_number: int
    backstore: str


class UnexportRequest(msgspec.Struct, frozen=True, tag="unexport"):
    """claim: not when an initiator is logged in."""

    deadline_s: float
    iqn: str
    claim: bool


class Job(msgspec.Struct, frozen=True):
    """What the process reads."""

    request: ExportRequest | UnexportRequest


def export(target: IscsiTarget, hba: str, name: str, chap: Chap | None, timeout_s: float) -> HelperReport:
    """Makes the target of a backstore; chap None lets in whoever may connect.

    When it raises, nothing is left of the target, except after TimeoutExpiredError.
    """
    return _run(
        ExportRequest(
            deadline_s=timeout_s,
            iqn=target.iqn,
            host=target.portal.host,
            port=target.portal.port,
            initiator=target.initiator,
            chap=chap,
            hba_number=int(hba.rpartition("_")[2]),
            backstore=name,
        )
    )


def unexport(target: IscsiTarget, timeout_s: float, *, claim: bool) -> HelperReport:
    """Removes what there is of it; sessions end.  With claim raises BusyError when there are any."""
    return _run(UnexportRequest(timeout_s, target.iqn, claim))


def _run(request: ExportRequest | UnexportRequest) -> HelperReport:
    # -P: what lies in the daemon's working folder is not to be imported.
    command = [sys.executable, "-P", "-m", MODULE]
    what = f"iSCSI target {request.iqn}"
    return run_program(command, what, request.deadline_s, stdin=msgspec.json.encode(Job(request)).decode())
