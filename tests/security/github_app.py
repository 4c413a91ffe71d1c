"""A GitHub App on the GitHub-like server, for the stories about its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from world import World

from coordinator.demo.server import AppView, GitHubServer
from coordinator.github import PERMISSIONS

SLUG = "coordinator-app"
KEY_ENV = "HELLO_APP_KEY"


@cache
def key() -> rsa.RSAPrivateKey:
    """Made once: it takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_pem() -> str:
    return key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


def public_pem() -> str:
    return key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    app: AppView
    number: int  # of the installation


def install(
    server: GitHubServer, *repositories: str, permissions: dict[str, str] | None = None, account: str = "octo"
) -> Installed:
    """The App, installed on these repositories (all of the account's without any)."""
    view = server.add_app(SLUG, public_key=public_pem(), permissions=permissions or dict(PERMISSIONS))
    return Installed(app=view, number=server.install_app(SLUG, account, list(repositories) or None))


def use_app(world: World, installed: Installed, **more: Any) -> None:
    """Have the daemon of this world speak as the App, over HTTP also with git."""
    world.config["github"].pop("token_env")
    world.environ.pop("HELLO_TOKEN")
    world.environ[KEY_ENV] = private_pem()
    world.config["github"]["remote_url"] = f"{world.server.api_url}/git/{{owner}}/{{name}}.git"
    world.config["github.app"] = {"app_id": installed.app.id, "private_key_env": KEY_ENV, **more}
    world.write_config()


def everything_written(folder: Path) -> str:
    """The content of every file below a folder."""
    return "\n".join(
        path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()
    )
