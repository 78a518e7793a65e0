"""A signed folder is refused as soon as one bit of it differs, by a key as by certificates."""

from __future__ import annotations

import datetime
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import Cli
from tests.sharing.fake_hub import FakeHub

import regraft as rg

pytest.importorskip("model_signing")
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

_TRIES = int(os.environ.get("REGRAFT_FLIPS", "10000"))


def write_key(folder: Path, key: Any, name: str, password: bytes | None = None) -> Path:
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    (folder / f"{name}.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return folder / f"{name}.pem"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ours, theirs (locked: with a password), of RSA; root -> middle -> leaf certificates of `leaf`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        write_key(folder, ec.generate_private_key(ec.SECP256R1()), name)
    write_key(folder, ec.generate_private_key(ec.SECP384R1()), "locked", b"secret")
    write_key(folder, rsa.generate_private_key(65537, 2048), "rsa")
    issuer: tuple[Any, Any] | None = None
    for name in ("root", "middle", "leaf"):
        key = ec.generate_private_key(ec.SECP256R1())
        write_key(folder, key, name)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer[0] if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=name != "leaf", path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=name != "leaf", crl_sign=False, content_commitment=False,
                    key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )  # fmt: skip
        certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        issuer = subject, key
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder with the names of a model's."""
    path = tmp_path / "pets"
    (path / "training").mkdir(parents=True)
    for place, name in enumerate(("config.json", "model.safetensors", "README.md", "training/results.json")):
        (path / name).write_bytes(np.random.default_rng(place).integers(0, 256, 900, dtype=np.uint8).tobytes())
    return path


def test_a_run_is_signed_and_verified(tmp_path: Path, tiny_run: Path, keys: Path, cli: Cli) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    unsigned = cli("verify", run, "--public-key", keys / "ours.pub")
    assert (unsigned.code, "is not signed" in unsigned.err) == (7, True)
    signed = cli("sign", run, "--key", keys / "ours.pem")
    assert (signed.code, signed.err) == (0, "")
    assert "signed 5 files" in signed.out
    good = cli("verify", run, "--public-key", keys / "ours.pub")
    assert (good.code, "5 files, all as they were signed" in good.out) == (0, True)
    other = cli("verify", run, "--public-key", keys / "theirs.pub")
    assert (other.code, "does not hold" in other.err) == (7, True)
    again = cli("sign", run, "--key", keys / "ours.pem")
    assert (again.code, "already" in again.err) == (7, True)
    assert rg.load_model(run) is not None, "a signature is in nobody's way"


def test_a_signature_goes_to_the_hub_and_comes_back(
    hub: FakeHub, tiny_run: Path, keys: Path, tmp_path: Path, cli: Cli
) -> None:
    assert cli("push", tiny_run, "maria/pets", "--key", keys / "ours.pem").code == 0
    got = cli("pull", "maria/pets", "-o", tmp_path / "pets")
    assert got.code == 0, got.err
    assert cli("verify", tmp_path / "pets", "--public-key", keys / "ours.pub").code == 0
    (tmp_path / "pets" / "manifest.json").write_bytes(b" " + (tmp_path / "pets" / "manifest.json").read_bytes())
    assert cli("verify", tmp_path / "pets", "--public-key", keys / "ours.pub").code == 7


def test_openssf_verifies_what_regraft_signed(folder: Path, keys: Path) -> None:
    from model_signing import verifying

    rg.sign(folder, key=keys / "ours.pem")
    verifying.Config().use_elliptic_key_verifier(public_key=keys / "ours.pub").verify(folder, folder / "model.sig")


def test_certificates_lead_to_a_root(folder: Path, keys: Path, cli: Cli) -> None:
    asked = ("--key", keys / "leaf.pem", "--certificate", keys / "leaf.crt", "--chain", keys / "middle.crt")
    assert cli("sign", folder, *asked).code == 0
    assert cli("verify", folder, "--certificates", keys / "root.crt").code == 0
    assert cli("verify", folder, "--public-key", keys / "leaf.pub").code == 7, "of a certificate, not of a key"
    write_key(keys, ec.generate_private_key(ec.SECP256R1()), "nobody")
    assert cli("verify", folder, "--certificates", keys / "leaf.crt").code == 7
    (folder / "README.md").write_bytes(b"other")
    assert cli("verify", folder, "--certificates", keys / "root.crt").code == 7


def test_a_root_is_not_signed_along(folder: Path, keys: Path, cli: Cli) -> None:
    asked = ("--key", keys / "leaf.pem", "--certificate", keys / "leaf.crt")
    refused = cli("sign", folder, *asked, "--chain", keys / "middle.crt", "--chain", keys / "root.crt")
    assert (refused.code, "signs itself" in refused.err) == (2, True)


def test_keys_that_cannot_be_used(
    folder: Path, keys: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "no.pem").write_text("no key")
    for name in (keys / "rsa.pem", tmp_path / "no.pem", keys / "locked.pem", keys / "ours.pub"):
        refused = cli("sign", folder, "--key", name)
        assert (refused.code, "cannot be used" in refused.err) == (2, True), name
    assert "no file" in cli("sign", folder, "--key", tmp_path / "none.pem").err
    assert not (folder / "model.sig").exists()
    monkeypatch.setenv("REGRAFT_KEY_PASSWORD", "secret")
    assert cli("sign", folder, "--key", keys / "locked.pem").code == 0
    assert cli("verify", folder, "--public-key", keys / "locked.pub").code == 0
    assert cli("verify", folder).code == 2
    assert cli("verify", folder, "--public-key", keys / "ours.pub", "--certificates", keys / "root.crt").code == 2
    assert cli("verify", folder, "--public-key", keys / "rsa.pub").code == 2


def _added(folder: Path) -> None:
    (folder / "extra.py").write_text("1")


def _added_in_a_hidden_folder(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("1")


def _linked(folder: Path) -> None:
    (folder / "README.md").rename(folder.parent / "README.md")
    (folder / "README.md").symlink_to(folder.parent / "README.md")


def _linked_folder(folder: Path) -> None:
    (folder / "training").rename(folder.parent / "training")
    (folder / "training").symlink_to(folder.parent / "training")


def _linked_signature(folder: Path) -> None:
    (folder / "model.sig").rename(folder.parent / "model.sig")
    (folder / "model.sig").symlink_to(folder.parent / "model.sig")


def _swapped(folder: Path) -> None:
    for a, b, c in (("config.json", "README.md", "x"),):
        (folder / a).rename(folder / c)
        (folder / b).rename(folder / a)
        (folder / c).rename(folder / b)


def _spaced(folder: Path) -> None:
    text = (folder / "model.sig").read_text()
    (folder / "model.sig").write_text(text.replace(":", ": ", 1))


def _with_more(folder: Path) -> None:
    bundle = json.loads((folder / "model.sig").read_text())
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = "somebody"
    (folder / "model.sig").write_text(json.dumps(bundle, separators=(",", ":")))


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": _added,
    "added where git lies": _added_in_a_hidden_folder,
    "removed": lambda folder: (folder / "README.md").unlink(),
    "renamed": lambda folder: (folder / "README.md").rename(folder / "readme.md"),
    "swapped": _swapped,
    "linked": _linked,
    "a linked folder": _linked_folder,
    "a linked signature": _linked_signature,
    "a pipe": lambda folder: os.mkfifo(folder / "pipe"),
    "cut": lambda folder: (folder / "README.md").write_bytes((folder / "README.md").read_bytes()[:-1]),
    "a signature with spaces": _spaced,
    "a signature that says more": _with_more,
    "an empty signature": lambda folder: (folder / "model.sig").write_bytes(b""),
    "a signature that is a list": lambda folder: (folder / "model.sig").write_bytes(b"[]"),
    "a deep signature": lambda folder: (folder / "model.sig").write_bytes(b"[" * 100_000),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_changed_is_refused(folder: Path, keys: Path, change: Callable[[Path], object]) -> None:
    rg.sign(folder, key=keys / "ours.pem")
    rg.verify(folder, public_key=keys / "ours.pub")
    change(folder)
    with pytest.raises(rg.StorageError):
        rg.verify(folder, public_key=keys / "ours.pub")


@pytest.mark.parametrize("certified", [False, True], ids=["key", "certificates"])
def test_a_flipped_bit_is_refused(folder: Path, keys: Path, certified: bool) -> None:
    """A few of each file; the slow test below flips many."""
    assert flipped(folder, keys, certified, 40) == 40


@pytest.mark.slow
@pytest.mark.parametrize("certified", [False, True], ids=["key", "certificates"])
def test_ten_thousand_flipped_bits_are_refused(folder: Path, keys: Path, certified: bool) -> None:
    """REGRAFT_FLIPS sets another number; of certificates it is a tenth."""
    tries = _TRIES // 10 if certified else _TRIES
    assert flipped(folder, keys, certified, tries) == tries


def flipped(folder: Path, keys: Path, certified: bool, tries: int) -> int:
    """How many folders with one flipped bit, of any byte of any file, the signature included, were refused."""
    more: dict[str, Any] = {"certificate": keys / "leaf.crt", "chain": [keys / "middle.crt"]} if certified else {}
    rg.sign(folder, key=keys / ("leaf.pem" if certified else "ours.pem"), **more)
    known: dict[str, Any] = {"certificates": [keys / "root.crt"]} if certified else {"public_key": keys / "ours.pub"}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = {path: path.read_bytes() for path in files}
    refused, rng = 0, np.random.default_rng(0)
    for number in range(tries):
        path = files[number % len(files)]
        data = bytearray(contents[path])
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            rg.verify(folder, **known)
        except rg.StorageError:
            refused += 1
        path.write_bytes(contents[path])
    rg.verify(folder, **known)
    return refused


def test_without_the_package_it_is_said(folder: Path, keys: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "model_signing" else find(name))
    shown = cli("sign", folder, "--key", keys / "ours.pem")
    assert (shown.code, "pip install 'regraft[sign]'" in shown.err) == (2, True)
