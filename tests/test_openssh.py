"""Keys from the files of other tools are read as they are, or refused without showing them."""

from __future__ import annotations

import base64
import subprocess
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

import forge
from moat import MalformedInput, MoatError
from moat._openssh import public_line, read_private
from moat.keystore import KeyStore
from tools import need

KEY = forge.key("imported")
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
SSH, OPEN = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
OPENSSH = "OPENSSH PRIVATE KEY"


def run(*words: str | Path, data: bytes = b"") -> bytes:
    """What a tool prints; it must end well."""
    command = [need(str(words[0])), *map(str, words[1:])]
    return subprocess.run(command, check=True, capture_output=True, input=data).stdout


def armour(label: str, body: bytes, width: int = 70, newline: str = "\n") -> bytes:
    text = base64.b64encode(body).decode()
    lines = [text[at : at + width] for at in range(0, len(text), width)]
    ends = f"-----BEGIN {label}-----", f"-----END {label}-----"
    return (newline.join([ends[0], *lines, ends[1]]) + newline).encode()


def string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def openssh(**parts: bytes) -> bytes:
    """An `openssh-key-v1` file of ``KEY`` (PROTOCOL.key), with parts replaced."""
    blob = string(b"ssh-ed25519") + string(KEY.public)
    told = {
        "magic": b"openssh-key-v1\0",
        "cipher": b"none",
        "kdf": b"none",
        "options": b"",
        "count": b"\0\0\0\1",
        "blob": blob,
        "check": b"\1\2\3\4" * 2,
        "type": b"ssh-ed25519",
        "point": KEY.public,
        "pair": KEY.seed + KEY.public,
        "comment": b"somebody@somewhere",
        "after": b"",
    }
    told |= {name: value for name, value in parts.items() if name != "padding"}
    inner = told["check"] + string(told["type"]) + string(told["point"]) + string(told["pair"])
    inner += string(told["comment"])
    inner += parts.get("padding", bytes(range(1, 1 + -len(inner) % 8)))
    outer = told["magic"] + string(told["cipher"]) + string(told["kdf"]) + string(told["options"])
    outer += told["count"] + string(told["blob"]) + string(inner) + told["after"]
    return armour(OPENSSH, outer)


def pkcs8_v2(public: bytes) -> bytes:
    """A OneAsymmetricKey with its public key (RFC 5958 §2, RFC 8410 §7)."""
    inner = bytes.fromhex("020101300506032b657004220420") + KEY.seed + b"\x81\x21\0" + public
    return armour("PRIVATE KEY", b"\x30" + bytes([len(inner)]) + inner, 64)


# --- what is read ---


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(openssh(), id="openssh"),
        pytest.param(openssh(comment=b""), id="openssh without a comment"),
        pytest.param(openssh(comment=bytes(300)), id="openssh with any comment"),
        pytest.param(KEY.pem().encode(), id="pkcs8"),
        pytest.param(pkcs8_v2(KEY.public), id="pkcs8 with its public key"),
        pytest.param(KEY.pem().encode().replace(b"\n", b"\r\n"), id="pkcs8, other line ends"),
        pytest.param(b"\n" + openssh() + b"\n\n", id="openssh in empty lines"),
    ],
)
def test_a_key_of_another_tool_is_read(data: bytes) -> None:
    found = read_private("imported", data)
    assert bytes(found.id) == KEY.public
    assert found.name == "imported"


@pytest.mark.parametrize("form", [PKCS8, SSH])
def test_a_key_that_another_library_writes_is_read(form: serialization.PrivateFormat) -> None:
    made = ed25519.Ed25519PrivateKey.from_private_bytes(KEY.seed)
    assert bytes(read_private("a", made.private_bytes(PEM, form, OPEN)).id) == KEY.public


def test_a_key_of_ssh_keygen_is_read_and_its_public_line_is_ours(tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "planner", "-f", tmp_path / "key")
    found = read_private("planner", (tmp_path / "key").read_bytes())
    line = public_line(found.id, "planner")
    assert (tmp_path / "key.pub").read_text() == line + "\n"
    signature = found.sign(b"message")
    found.id.verify(b"message", signature)


def test_ssh_keygen_reads_our_public_line(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(public_line(KeyStore(tmp_path).create("a").id, "a") + "\n")
    assert b"ED25519" in run("ssh-keygen", "-l", "-f", tmp_path / "key.pub")


def test_a_key_of_openssl_is_read_and_is_the_same_key(tmp_path: Path) -> None:
    pem = run("openssl", "genpkey", "-algorithm", "ed25519")
    found = read_private("a", pem)
    der = run("openssl", "pkey", "-pubout", "-outform", "DER", data=pem)
    assert der[-32:] == bytes(found.id)


def test_openssl_reads_our_keys_and_verifies_what_they_sign(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys")
    made = keys.import_key("planner", openssh())
    path = tmp_path / "keys" / "planner.pem"
    der = run("openssl", "pkey", "-in", path, "-pubout", "-outform", "DER")
    assert der[-32:] == bytes(made.id)
    (tmp_path / "said").write_bytes(b"message")
    (tmp_path / "signed").write_bytes(made.sign(b"message"))
    told = run(
        "openssl", "pkeyutl", "-verify", "-inkey", path, "-rawin",
        "-in", tmp_path / "said", "-sigfile", tmp_path / "signed",
    )  # fmt: skip
    assert b"Success" in told


# --- what is refused ---

SSH_KEY = ec.generate_private_key(ec.SECP256R1())
SEED_ONLY = base64.b64encode(KEY.seed)
WORD = serialization.BestAvailableEncryption(b"a passphrase")


def other(key: object, form: serialization.PrivateFormat = PKCS8) -> bytes:
    return key.private_bytes(PEM, form, OPEN)  # type: ignore[attr-defined]


REFUSED = {
    "empty": (b"", "not a private key"),
    "a seed in hex": (KEY.seed.hex().encode(), "not a private key"),
    "a seed in base64": (SEED_ONLY, "not a private key"),
    "a did": (KEY.did.encode(), "not a private key"),
    "two keys": (KEY.pem().encode() * 2, "several keys"),
    "two forms": (openssh() + KEY.pem().encode(), "several keys"),
    "words before": (b"a key:\n" + openssh(), "not a private key"),
    "words after": (openssh() + b"that was it\n", "not a private key"),
    "other end": (openssh().replace(b"END OPENSSH ", b"END "), "not a private key"),
    "a public key": (armour("PUBLIC KEY", b"x" * 44), "no private key"),
    "a certificate": (armour("CERTIFICATE", b"x" * 44), "no private key"),
    "rsa": (other(rsa.generate_private_key(65537, 1024)), "not an Ed25519 key"),
    "ec": (other(SSH_KEY), "not an Ed25519 key"),
    "dsa": (other(dsa.generate_private_key(1024)), "not an Ed25519 key"),
    "ed448": (other(ed448.Ed448PrivateKey.generate()), "not an Ed25519 key"),
    "ecdsa of ssh": (other(SSH_KEY, SSH), "not an Ed25519 key"),
    "old ec": (
        other(SSH_KEY, serialization.PrivateFormat.TraditionalOpenSSL),
        "not an Ed25519 key",
    ),
    "encrypted pkcs8": (
        ed25519.Ed25519PrivateKey.from_private_bytes(KEY.seed).private_bytes(PEM, PKCS8, WORD),
        "openssl pkey",
    ),
    "encrypted for ssh": (
        openssh(cipher=b"aes256-ctr", kdf=b"bcrypt", options=string(bytes(16)) + b"\0\0\0\x10"),
        "ssh-keygen -p",
    ),
    "a kdf without a cipher": (openssh(kdf=b"bcrypt"), "encrypted"),
    "not base64": (openssh().replace(b"\n", b"\n*", 1), "not base64"),
    "padded twice": (KEY.pem().encode().replace(b"\n-----E", b"=\n-----E"), "not base64"),
    "spaces in base64": (openssh().replace(b"\n", b"\n ", 1), "not base64"),
    "pkcs8 with another's public key": (pkcs8_v2(forge.key("other").public), "PKCS#8"),
    "pkcs8, bytes after": (armour("PRIVATE KEY", forge._BLOCK + KEY.seed + b"\0"), "PKCS#8"),
    "pkcs8, cut": (armour("PRIVATE KEY", forge._BLOCK + KEY.seed[:-1]), "PKCS#8"),
    "other magic": (openssh(magic=b"openssh-key-v2\0"), "openssh-key-v1"),
    "no keys": (openssh(count=bytes(4)), "several keys, or none"),
    "two keys inside": (openssh(count=b"\0\0\0\2"), "several keys, or none"),
    "check numbers differ": (openssh(check=b"\1\2\3\4\1\2\3\5"), "check numbers"),
    "two kinds": (openssh(type=b"ssh-rsa"), "two kinds"),
    "another public key outside": (
        openssh(blob=string(b"ssh-ed25519") + string(forge.key("other").public)),
        "public part",
    ),
    "more outside": (
        openssh(blob=string(b"ssh-ed25519") + string(KEY.public) + b"\0"),
        "public part",
    ),
    "another public key inside": (openssh(point=forge.key("other").public), "public part"),
    "another public half": (openssh(pair=KEY.seed + forge.key("other").public), "public part"),
    "another secret": (openssh(pair=forge.key("other").seed + KEY.public), "public part"),
    "a seed alone": (openssh(pair=KEY.seed), "wrong length"),
    "a long pair": (openssh(pair=KEY.seed + KEY.public + b"\0"), "wrong length"),
    "no padding": (openssh(comment=b"x", padding=b""), "cut off"),
    "wrong padding": (openssh(comment=b"x", padding=b"\1\2\3\5"), "padding"),
    "a block of padding": (openssh(comment=b"x" * 5, padding=bytes(range(1, 9))), "padding"),
    "something after": (openssh(after=b"\0"), "something follows"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_and_says_why(case: str) -> None:
    data, why = REFUSED[case]
    with pytest.raises(MalformedInput, match=why) as caught:
        read_private("a", data)
    shows_nothing(caught.value)


def shows_nothing(error: BaseException) -> None:
    """Neither the error nor what is behind it holds a piece of the key."""
    assert error.__context__ is None
    assert error.__cause__ is None
    told = "".join(traceback.format_exception(error)) + repr(vars(error))
    for form in (KEY.seed.hex(), SEED_ONLY.decode(), repr(KEY.seed), str(list(KEY.seed))):
        pieces = [form[at : at + 8] for at in range(len(form) - 8)]
        assert not any(piece in told for piece in pieces)


def body(data: bytes) -> bytes:
    return base64.b64decode(b"".join(data.splitlines()[1:-1]))


def test_a_cut_file_is_refused_wherever_it_is_cut() -> None:
    whole = body(openssh())
    for size in range(len(whole)):
        with pytest.raises(MalformedInput) as caught:
            read_private("a", armour(OPENSSH, whole[:size]))
        shows_nothing(caught.value)


def test_a_changed_byte_is_refused_or_lies_in_the_comment() -> None:
    whole = body(openssh())
    at = whole.index(b"somebody@somewhere")
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        if at <= place < at + len(b"somebody@somewhere"):
            assert bytes(read_private("a", armour(OPENSSH, bytes(changed))).id) == KEY.public
            continue
        with pytest.raises(MalformedInput) as caught:
            read_private("a", armour(OPENSSH, bytes(changed)))
        shows_nothing(caught.value)


@given(st.binary(max_size=200), st.sampled_from([OPENSSH, "PRIVATE KEY", "RSA PRIVATE KEY"]))
def test_no_bytes_do_anything_but_be_refused(data: bytes, label: str) -> None:
    for made in (data, armour(label, data), armour(label, b"openssh-key-v1\0" + data)):
        with pytest.raises(MalformedInput):
            read_private("a", made)


# --- the key store ---


def test_an_imported_key_is_kept_as_one_of_ours(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys")
    made = keys.import_key("planner", openssh())
    assert keys.load("planner") == made
    assert bytes(keys.public("planner")) == KEY.public
    assert (tmp_path / "keys" / "planner.pem").read_text() == KEY.pem()
    assert (tmp_path / "keys" / "planner.pem").stat().st_mode & 0o777 == 0o600


def test_a_taken_name_or_key_is_refused(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys")
    before = keys.create("planner")
    with pytest.raises(MoatError, match="already"):
        keys.import_key("planner", openssh())
    assert keys.load("planner") == before
    keys.import_key("worker", openssh())
    with pytest.raises(MoatError, match="`worker`"):
        keys.import_key("again", KEY.pem().encode())
    assert keys.names() == ["planner", "worker"]


def test_a_refused_file_leaves_nothing_behind(tmp_path: Path) -> None:
    for data, _ in REFUSED.values():
        with pytest.raises(MalformedInput):
            KeyStore(tmp_path / "keys").import_key("a", data)
    with pytest.raises(MalformedInput):
        KeyStore(tmp_path / "keys").import_key("../a", openssh())
    assert list(tmp_path.iterdir()) == []
