"""A model folder, signed and verified with OpenSSF model-signing: by a key or a certificate, without a network."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft import commit
from regraft.errors import RegraftError, SettingsError, StorageError
from regraft.models.store.find import find_model_folder
from regraft.run.stored import require_plain
from regraft.summary import Summary
from regraft.wording import quantity

__all__ = ["PASSWORD", "SIGNATURE", "Signed", "require_signing", "sign", "verify"]

SIGNATURE = "model.sig"
PASSWORD = "REGRAFT_KEY_PASSWORD"  # names a variable
_NEEDED = {"model-signing": "model_signing", "pyopenssl": "OpenSSL"}  # the first imports the second, and forgot it
_LARGEST = 64 << 20  # bytes of a signature


@dataclass(frozen=True, repr=False)
class Signed(Summary):
    """A model folder whose signature holds.

    Attributes:
        path: The folder.
        num_files: How many files it has beside the signature: all of them are signed.
    """

    path: Path
    num_files: int

    def facts(self) -> dict[str, object]:
        """Return the folder, and how many files are signed."""
        return {"path": str(self.path), "num_files": self.num_files}

    def __str__(self) -> str:
        return f"{self.path}: {quantity(self.num_files, 'file')}, all as they were signed"


def sign(
    run: str | Path,
    *,
    key: str | Path,
    certificate: str | Path | None = None,
    chain: Sequence[str | Path] = (),
    password: str | None = None,
) -> Signed:
    """Sign the model folder of a run: model.sig in it says the SHA-256 of each of its files.

    Args:
        run: A run folder or a model folder.
        key: The private key, a PEM file of an elliptic curve (P-256, P-384 or P-521).
        certificate: Of its public key, PEM, where it is verified by those who know its issuer instead of the key.
        chain: Certificates between that one and the root, PEM.
        password: Of the key.

    Raises:
        SettingsError: There is no model; model-signing is not installed; or the key or a certificate cannot be used.
        StorageError: There is a signature already, or something in the folder that is not a plain file.
    """
    require_signing()
    folder = find_model_folder(run)
    target = folder / SIGNATURE
    commit.require_free(target)
    names = list(_names(folder))
    config = _signer(key, certificate, chain, password).set_hashing_config(_hashing(folder))
    with tempfile.TemporaryDirectory(prefix="regraft-sign-") as temporary:
        made = Path(temporary) / SIGNATURE
        config.sign(folder, made)
        commit.write_new(target, made.read_bytes())
    return Signed(folder, len(names))


def verify(run: str | Path, *, public_key: str | Path | None = None, certificates: Sequence[str | Path] = ()) -> Signed:
    """Verify the signature of a model folder: every file is as it was signed, and there is none beside them.

    Args:
        run: A run folder or a model folder.
        public_key: The signer's, PEM; it has to come another way than the folder.
        certificates: Instead of a key: roots that the signer's certificate has to lead to, PEM.

    Raises:
        SettingsError: There is no model; model-signing is not installed; or not one of both was given, or it cannot
            be used.
        StorageError: The folder is not signed, not by this signer, or not as it was signed.
    """
    require_signing()
    if (public_key is None) == (not certificates):
        raise SettingsError(
            "A signature is verified by a key or by certificates.",
            "one of both",
            "`--public-key FILE`, or `--certificates FILE`",
        )
    folder = find_model_folder(run)
    path = folder / SIGNATURE
    if not os.path.lexists(path):
        raise StorageError(
            f"{str(folder)!r} is not signed: it has no {SIGNATURE}.", "", "`regraft sign RUN --key FILE` signs it"
        )
    require_plain(path)
    if path.stat().st_size > _LARGEST:
        raise _broken(folder, f"{SIGNATURE} has {path.stat().st_size:,} bytes")
    names = set(_names(folder))
    verifier = _verifier(public_key, certificates).set_hashing_config(_hashing(folder))
    try:
        _require_canonical(path)
        verifier.verify(folder, path)
        signed = _signed_names(path)
    except RegraftError:
        raise
    except Exception as error:  # the library raises what those raise that it builds on: of keys, certificates, JSON
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise _broken(folder, reason) from error
    if signed != names:
        raise _broken(folder, f"{sorted(signed ^ names)[0]!r} is not signed")
    return Signed(folder, len(names))


def require_signing() -> None:
    """Raise SettingsError where model-signing is not installed."""
    missing = [name for name, module in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise SettingsError(
            f"Signing takes {' and '.join(missing)}, not installed here.", "", "`pip install 'regraft[sign]'`"
        )


def _names(folder: Path) -> Iterator[str]:
    """Yield the files of a folder but its signature, by their names in it.

    Raises:
        StorageError: There is a link, or something that is no file.
    """
    for place, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(place, name)
            require_plain(path)
            if stat.S_ISREG(path.lstat().st_mode) and path != folder / SIGNATURE:
                yield path.relative_to(folder).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _hashing(folder: Path) -> Any:
    from model_signing import hashing

    config = hashing.Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
    return config.set_ignored_paths(paths=[folder / SIGNATURE], ignore_git_paths=False)


def _signer(key: str | Path, certificate: str | Path | None, chain: Sequence[str | Path], password: str | None) -> Any:
    from model_signing import signing

    _require_files(key, certificate, *chain)
    for one in chain:
        _require_no_root(one)
    try:
        if certificate is not None:
            return signing.Config().use_certificate_signer(
                private_key=key, signing_certificate=certificate, certificate_chain=[Path(one) for one in chain]
            )
        secret: Any = None if password is None else password.encode()  # the library says text, and takes bytes
        return signing.Config().use_elliptic_key_signer(private_key=key, password=secret)
    except Exception as error:
        raise _unusable(str(key), error) from error


def _verifier(public_key: str | Path | None, certificates: Sequence[str | Path]) -> Any:
    from model_signing import verifying

    _require_files(public_key, *certificates)
    try:
        if public_key is not None:
            return verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        return verifying.Config().use_certificate_verifier(certificate_chain=[Path(one) for one in certificates])
    except Exception as error:
        raise _unusable(str(public_key or certificates[0]), error) from error


def _require_files(*paths: str | Path | None) -> None:
    for path in paths:
        if path is not None and not Path(path).is_file():
            raise SettingsError(f"There is no file {str(path)!r}.", "a PEM file", "")


def _require_no_root(path: str | Path) -> None:
    """Raise where a chain holds a root, which those who verify have themselves: its copy would be checked by nobody."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except ValueError as error:
        raise _unusable(str(path), error) from error
    if any(certificate.subject == certificate.issuer for certificate in found):
        raise SettingsError(
            f"{str(path)!r} holds a certificate that signs itself: a root.",
            "the certificates between that of the key and the root",
            "leave it out: who verifies gives it, as `--certificates FILE`",
        )


def _unusable(name: str, error: Exception) -> SettingsError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return SettingsError(
        f"{name!r} cannot be used: {reason}.",
        "PEM files of an elliptic curve: P-256, P-384 or P-521",
        f"`openssl ecparam -name prime256v1 -genkey -noout -out private.pem`; a password goes into {PASSWORD}",
    )


def _require_canonical(path: Path) -> None:
    """Raise ValueError where the bytes of a signature are not those that say what it says.

    The library reads past what it does not know, and base64 has bits that nobody reads: none of that is signed.
    """
    from model_signing._signing.sign_sigstore_pb import Signature

    bundle = Signature.read(path).bundle
    signatures = [] if bundle.dsse_envelope is None else bundle.dsse_envelope.signatures
    if bundle.to_json().encode() != path.read_bytes() or len(signatures) != 1 or signatures[0].keyid:
        raise ValueError(f"{SIGNATURE} is not as it was written")


def _signed_names(path: Path) -> set[str]:
    envelope = json.loads(path.read_bytes())["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"], validate=True))
    return {str(one["name"]) for one in statement["predicate"]["resources"]}


def _broken(folder: Path, reason: str) -> StorageError:
    return StorageError(
        f"The signature of {str(folder)!r} does not hold: {reason.rstrip('.')}.",
        "the files that were signed, by the signer whose key was given",
        "do not use it; fetch it again, and ask who signed it",
    )
