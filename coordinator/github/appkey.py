"""The private key of a GitHub App: where it comes from, and the sentence for every way it cannot be used.

Reads the variable or the file that the configuration names. The key leaves this process only as signatures.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from adw_modules.config import GitHubAppSettings
from adw_modules.errors import ConfigError

if TYPE_CHECKING:  # 20 ms and 8 MB that only a GitHub App needs
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

LARGEST = 64 * 1024  # bytes; a key has about 1,700
_WHERE_FROM = 'make a new one on the App\'s page under "Private keys"'


@dataclass(frozen=True, slots=True, kw_only=True)
class AppAccess:
    """Everything needed to act as one GitHub App. `issuer` is its client id, or its number as text."""

    issuer: str
    key: RSAPrivateKey = field(repr=False)
    pem: str = field(repr=False)  # for the redactor
    installation_id: int | None = None
    home: str = ""  # a repository that questions about nothing in particular are asked through


def load_app(
    settings: GitHubAppSettings, environ: Mapping[str, str], *, root: Path, home: str = ""
) -> AppAccess | None:
    """The App of `[github.app]`; None when there is none. Raises ConfigError with one sentence."""
    if not settings.is_used:
        return None
    where, pem = _read(settings, environ, root)
    return AppAccess(
        issuer=settings.issuer,
        key=_parsed(pem, where),
        pem=pem,
        installation_id=settings.installation_id,
        home=home,
    )


def _read(settings: GitHubAppSettings, environ: Mapping[str, str], root: Path) -> tuple[str, str]:
    if settings.private_key_file is not None:
        path = root / settings.private_key_file
        where = f"[github.app] private_key_file {path}"
        return where, _read_file(path, where, environ)
    name = settings.private_key_env or ""
    where = f"[github.app] private_key_env {name}"
    # In an environment file a key is most easily one line, with \n where its lines end.
    text = environ.get(name, "").replace("\\n", "\n").strip()
    if not text:
        raise ConfigError(f"{where} is not set: export the App's private key there, lines joined by \\n.")
    return where, text + "\n"


def _read_file(path: Path, where: str, environ: Mapping[str, str]) -> str:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    try:
        found = os.fstat(opened)  # of the file that is read, not of what the path leads to a moment later
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
            raise ConfigError(f"{where} is not a key file: {_WHERE_FROM}.")
        if found.st_mode & 0o077 and not _is_of_systemd(path, environ):
            mode = stat.S_IMODE(found.st_mode)
            raise ConfigError(
                f"{where} can be read by others (mode {mode:04o}): chmod 600 it, and if others did, "
                f"{_WHERE_FROM}."
            )
        return os.read(opened, LARGEST).decode(errors="replace")
    finally:
        os.close(opened)


def _is_of_systemd(path: Path, environ: Mapping[str, str]) -> bool:
    """systemd keeps its credentials from others by an access list, which shows in the mode as a group's."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    return bool(folder) and path.parent == Path(folder or "/")


def _parsed(pem: str, where: str) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        plain = "openssl rsa -in KEY.pem -out PLAIN.pem"
        raise ConfigError(f"{where} is encrypted with a passphrase: take it off with `{plain}`.") from None
    except (ValueError, UnsupportedAlgorithm):
        # Without the library's words: they may quote what it could not read.
        raise ConfigError(f"{where} is not a private key in PEM form: {_WHERE_FROM}.") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < 2048:
        raise ConfigError(f"{where} is not an RSA key of 2048 bits or more: {_WHERE_FROM}.")
    return key
