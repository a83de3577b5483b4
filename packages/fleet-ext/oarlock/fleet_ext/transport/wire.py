"""What travels between two ranks: a handshake by a shared token, then frames.

Both sides prove that they have the token (HMAC-SHA256 of both nonces and of the job's name and epoch) before anything
else is read, so strangers, other jobs and ranks of an earlier epoch are refused. Only TLS keeps what follows
secret and unchanged on the way; give `Tls` where the network is not yours. A frame is a header of 32 bytes with a
checksum of its own, then the payload. Nothing is unpickled.
"""

import hashlib
import hmac
import os
import secrets
import socket
import ssl
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from oarlock.fleet_ext.transport.errors import Refused

MAGIC = 0x4652414F  #: "OARF"
_HEADER = struct.Struct("<IBBHIQQI")
HEADER_BYTES = _HEADER.size
LARGEST = 1 << 40  #: bytes of a payload
DATA, PING, PONG, ABORT, FAREWELL, CREDIT = range(1, 7)  #: kinds of frames
HANDSHAKE_S = 5.0  #: for a whole handshake

_HELLO = struct.Struct("<I16s32s")
_NONCE, _PROOF = 16, 32


@dataclass(frozen=True, slots=True)
class Header:
    """Of a frame.

    Args:
        kind: one of the constants of this module.
        flag: for the kind's own use.
        group: whose message it is.
        tag: which of the group's messages.
        length: bytes of the payload that follows.
        check: 16 bits that both ends must agree on: what they are doing.
    """

    kind: int
    group: int
    tag: int
    length: int
    flag: int = 0
    check: int = 0

    def pack(self) -> bytes:
        front = _HEADER.pack(
            MAGIC, self.kind, self.flag, self.check, self.group, self.tag, self.length, 0
        )
        return front[:-4] + zlib.crc32(front[:-4]).to_bytes(4, "little")

    @classmethod
    def unpack(cls, packed: bytes | bytearray) -> "Header":
        """
        Raises:
            Refused: it is not a header.
        """
        magic, kind, flag, doing, group, tag, length, check = _HEADER.unpack(packed)
        if magic != MAGIC or check != zlib.crc32(packed[:-4]):
            raise Refused("what came is not a frame of this protocol")
        if not DATA <= kind <= CREDIT or length > LARGEST:
            raise Refused(f"a frame of kind {kind} with {length} bytes is not of this protocol")
        return cls(kind=kind, group=group, tag=tag, length=length, flag=flag, check=doing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificates for encrypted connections: every rank shows one, signed by the job's authority.

    Args:
        certificate, key: PEM files of this rank.
        authority: PEM file of who signed all of them.
    """

    certificate: Path
    key: Path
    authority: Path

    def context(self, *, server: bool) -> ssl.SSLContext:
        purpose = ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(purpose)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # ranks move between machines: the authority is what counts
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.certificate, self.key)
        context.load_verify_locations(self.authority)
        return context


def new_token() -> str:
    """A token for a job, for its ranks' environment."""
    return secrets.token_hex(32)


def greet(connection: socket.socket, token: str, context: str, tls: Tls | None) -> socket.socket:
    """The connecting side of the handshake.

    Args:
        connection: a connected socket; closed where this fails.
        context: what both sides must agree on: the job, its epoch, who calls whom.

    Returns:
        the socket to use from now on.

    Raises:
        Refused: the other side did not prove that it has the token, or does not agree on the context.
    """
    return _shake(connection, token, context, tls, server=False)


def welcome(connection: socket.socket, token: str, context: str, tls: Tls | None) -> socket.socket:
    """The listening side of `greet`."""
    return _shake(connection, token, context, tls, server=True)


def _shake(
    connection: socket.socket, token: str, context: str, tls: Tls | None, *, server: bool
) -> socket.socket:
    deadline = time.monotonic() + HANDSHAKE_S
    connection.settimeout(HANDSHAKE_S)
    try:
        if tls is not None:
            connection = tls.context(server=server).wrap_socket(connection, server_side=server)
        digest = hashlib.sha256(context.encode()).digest()
        mine = os.urandom(_NONCE)
        hello = _HELLO.pack(MAGIC, mine, digest)
        # The listening side says nothing to who does not speak this protocol.
        if not server:
            connection.sendall(hello)
        magic, theirs, wanted = _HELLO.unpack(read_exactly(connection, _HELLO.size, deadline))
        if magic != MAGIC:
            raise Refused("the other side does not speak this protocol")
        if server:
            connection.sendall(hello)
        nonces = theirs + mine if server else mine + theirs
        proofs = [
            hmac.new(token.encode(), side + nonces + digest, hashlib.sha256).digest()
            for side in (b"connects", b"listens")
        ]
        # Who connects proves itself first: a stranger learns nothing from the answer.
        if not server:
            connection.sendall(proofs[0])
        expected = proofs[0 if server else 1]
        try:
            proved = hmac.compare_digest(read_exactly(connection, _PROOF, deadline), expected)
        except (EOFError, ConnectionResetError):  # who listens does not answer a wrong proof
            proved = False
        if not proved:
            raise Refused(
                "the other side has another token"
                if wanted == digest
                else "the other side belongs to another job or epoch"
            )
        if server:
            connection.sendall(proofs[1])
        connection.settimeout(None)
        return connection
    except Refused:
        connection.close()
        raise
    except (OSError, EOFError, struct.error) as error:  # ssl's errors are OSErrors
        connection.close()
        raise Refused(f"the handshake failed: {error}") from error


def read_exactly(connection: socket.socket, count: int, deadline: float | None = None) -> bytes:
    """
    Args:
        deadline: of the monotonic clock, for all of them.

    Raises:
        EOFError: the connection ended before.
        TimeoutError: the deadline is over.
    """
    found = bytearray(count)
    view = memoryview(found)
    while len(view):
        if deadline is not None:
            connection.settimeout(max(1e-3, deadline - time.monotonic()))
        received = connection.recv_into(view)
        if received == 0:
            raise EOFError("the connection ended")
        view = view[received:]
    return bytes(found)
