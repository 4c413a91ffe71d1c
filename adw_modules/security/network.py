"""What a run may reach: from the configuration to the policy of its proxy, and from refusals to advice. Pure.

Owns the table of services and of package registries. Must not judge a request (`egress.py` does), nor
guess a host: a service that is not in the table has to be named by the operator.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlsplit

from adw_modules.security import egress

POLICY_FORMAT = 1
PROXY_PORT = 61_080  # inside; above the ports that Linux hands out by itself
MOST_REFUSALS_SHOWN = 10
LONGEST_LOG = 1_000_000  # bytes of a log of refusals that are read


class NetworkMode(StrEnum):
    """How much network the sandbox of a worker has."""

    OPEN = "open"
    ALLOW_LIST = "allow-list"
    NONE = "none"


# Downloads only, as far as a host name can say so: no upload.pypi.org, no crates.io (publishing).
REGISTRIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pypi": ("pypi.org", "files.pythonhosted.org"),
        "npm": ("registry.npmjs.org", "registry.yarnpkg.com"),
        "crates": ("index.crates.io", "static.crates.io"),
        "go": ("proxy.golang.org", "sum.golang.org"),
        "rubygems": ("rubygems.org", "index.rubygems.org"),
        "maven": ("repo.maven.apache.org", "repo1.maven.org", "plugins.gradle.org"),
        "debian": ("deb.debian.org", "deb.debian.org:80", "security.debian.org", "security.debian.org:80"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Service:
    """Where a seller of models is, and the variables that hold its key or another address for it."""

    hosts: tuple[str, ...]
    logins: tuple[str, ...] = ()  # what a program without an API key asks as well
    key: str = ""
    addresses: tuple[str, ...] = ()


# By the names that `price_list` uses. None for aws and azure: their hosts are the operator's own.
_SERVICES: Mapping[str, _Service] = MappingProxyType(
    {
        "anthropic": _Service(
            hosts=("api.anthropic.com",),
            logins=("console.anthropic.com", "platform.claude.com", "claude.ai"),
            key="ANTHROPIC_API_KEY",
            addresses=("ANTHROPIC_BASE_URL",),
        ),
        "cerebras": _Service(hosts=("api.cerebras.ai",), key="CEREBRAS_API_KEY"),
        "copilot": _Service(hosts=("*.githubcopilot.com", "api.github.com"), logins=("github.com",)),
        "deepseek": _Service(hosts=("api.deepseek.com",), key="DEEPSEEK_API_KEY"),
        "fireworks": _Service(hosts=("api.fireworks.ai",), key="FIREWORKS_API_KEY"),
        "google": _Service(
            hosts=("generativelanguage.googleapis.com",),
            logins=("cloudcode-pa.googleapis.com", "oauth2.googleapis.com", "accounts.google.com"),
            key="GEMINI_API_KEY",
            addresses=("GOOGLE_GEMINI_BASE_URL",),
        ),
        "groq": _Service(hosts=("api.groq.com",), key="GROQ_API_KEY"),
        "minimax": _Service(hosts=("api.minimax.io",), key="MINIMAX_API_KEY"),
        "mistral": _Service(hosts=("api.mistral.ai",), key="MISTRAL_API_KEY"),
        "moonshotai": _Service(hosts=("api.moonshot.ai",), key="MOONSHOT_API_KEY"),
        "openai": _Service(
            hosts=("api.openai.com",),
            logins=("chatgpt.com", "auth.openai.com"),
            key="OPENAI_API_KEY",
            addresses=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        ),
        "openrouter": _Service(
            hosts=("openrouter.ai",), key="OPENROUTER_API_KEY", addresses=("OPENROUTER_BASE_URL",)
        ),
        "together": _Service(hosts=("api.together.xyz",), key="TOGETHER_API_KEY"),
        "x-ai": _Service(hosts=("api.x.ai",), key="XAI_API_KEY"),
        "zai": _Service(hosts=("api.z.ai",), key="ZAI_API_KEY"),
    }
)
_OF_DIALECT: Mapping[str, str] = MappingProxyType(
    {
        "claude": "anthropic",
        "codex": "openai",
        "copilot": "copilot",
        "gemini": "google",
        "openrouter-cli": "openrouter",
    }
)
_ADDRESS = re.compile(
    r".*_(?:BASE_URL|API_BASE|API_URL|ENDPOINT)|(?:OLLAMA|OPENAI|ANTHROPIC|GOOGLE|OPENROUTER)_HOST"
)


class ReachingProvider(Protocol):
    """The part of `[providers.NAME]` that says whom its program talks to."""

    @property
    def agent(self) -> str: ...
    @property
    def price_list(self) -> str | None: ...
    @property
    def api_key_env(self) -> str | None: ...
    @property
    def pass_env(self) -> Iterable[str]: ...
    @property
    def allow_hosts(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One entry of an allow-list: a name or `*.suffix` with a port, or a network with a port (0: every)."""

    host: str = ""
    network: str = ""
    port: int = 443

    @property
    def loopback(self) -> str | None:
        """The address of this machine that it names, if it does."""
        if self.host == "localhost":
            return "127.0.0.1"
        address = ipaddress.ip_network(self.network).network_address if self.network else None
        return str(address) if address is not None and address.is_loopback else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The proxy of the machine itself; hosts in `direct`, and below them, are reached without it."""

    host: str
    port: int
    direct: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What an agent was refused, and how often at least."""

    reason: str
    target: str
    count: int


# --- entries of the configuration --------------------------------------------------------------------------


def parse_place(text: str) -> Place:
    """`host`, `host:port`, `*.suffix`, an address or a network, with or without a port.

    Raises ValueError with the rest of a sentence about the entry.
    """
    host, port = _split_port(text.strip())
    if _is_network(host):
        return _network(host, port)
    if host == "*":
        raise ValueError('would allow every host; for that set network = "open" in [sandbox]')
    name = _name(host.removeprefix("*."))
    if name == "localhost" and port is None:
        raise ValueError("needs a port, as in localhost:11434")
    if host.startswith("*.") and "." not in name:
        raise ValueError("is too wide; after *. there have to be two parts, as in *.example.org")
    return Place(host=("*." if host.startswith("*.") else "") + name, port=port or 443)


def _split_port(text: str) -> tuple[str, int | None]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or (":" in host and not host.endswith("]")):
        return text, None
    if not port.isdecimal() or not port.isascii() or not 0 < int(port) < 65_536:
        raise ValueError("has no port between 1 and 65535 after its colon")
    if int(port) == PROXY_PORT:
        raise ValueError(f"has port {PROXY_PORT}, where the sandbox's own proxy is")
    return host, int(port)


def _is_network(host: str) -> bool:
    return host.startswith("[") or "/" in host or ":" in host or host.rpartition(".")[2].isdecimal()


def _network(host: str, port: int | None) -> Place:
    try:
        network = ipaddress.ip_network(host.removeprefix("[").replace("]", ""))
    except ValueError:
        raise ValueError("is neither a host name nor an address or network, as in 10.0.0.0/8") from None
    if network.prefixlen == 0:
        raise ValueError('would allow every address; for that set network = "open" in [sandbox]')
    is_loopback = network.overlaps(ipaddress.ip_network("127.0.0.0/8" if network.version == 4 else "::1/128"))
    if is_loopback and (port is None or network.num_addresses > 1):
        raise ValueError("is this machine's loopback; name one address with a port, as in 127.0.0.1:11434")
    return Place(network=str(network), port=port or 0)


def _name(host: str) -> str:
    try:
        return egress.host_name(host if host.isascii() else host.encode("idna").decode())
    except (UnicodeError, ValueError):
        raise ValueError("is not a host name, as in example.org or *.example.org") from None


def address_of(url: str) -> Place | None:
    """Whom an address such as `https://api.example.org/v1` leads to; None if it is not one."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}", scheme="https")
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        host = parts.hostname or ""
        return parse_place(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except (KeyError, ValueError):
        return None


# --- the policy --------------------------------------------------------------------------------------------


def places_of(
    provider: ReachingProvider, env: Mapping[str, str], *, hosts: Sequence[str], registries: Sequence[str]
) -> tuple[Place, ...]:
    """All that a run of this provider may reach. `env` is the worker's; `hosts` and `registries` are
    `[sandbox]`'s. Raises ValueError for an entry that the schema would not have let through."""
    named = [*hosts, *provider.allow_hosts, *(host for name in registries for host in REGISTRIES[name])]
    found = [parse_place(entry) for entry in (*named, *_service_hosts(provider, env))]
    found += [place for place in map(address_of, _addresses(env)) if place is not None]
    return tuple(dict.fromkeys(found))


def knows_service(provider: ReachingProvider, env: Mapping[str, str]) -> bool:
    """Whether anybody is known whom this provider's program can ask for a model. `env` may lack what the
    daemon's environment will give."""
    handed = any(_ADDRESS.fullmatch(name) for name in provider.pass_env)
    return handed or bool(places_of(provider, env, hosts=(), registries=()))


def _addresses(env: Mapping[str, str]) -> list[str]:
    return [value for name, value in env.items() if value and _ADDRESS.fullmatch(name)]


def _service_hosts(provider: ReachingProvider, env: Mapping[str, str]) -> list[str]:
    """Of the services that the provider is known to use, but for those it is sent elsewhere from."""
    variables = {provider.api_key_env, *provider.pass_env}
    names = [provider.price_list or _OF_DIALECT.get(provider.agent, "")]
    names += [name for name, service in _SERVICES.items() if service.key and service.key in variables]
    found: list[str] = []
    for service in (_SERVICES[name] for name in dict.fromkeys(names) if name in _SERVICES):
        if not any(env.get(variable) for variable in service.addresses):
            found += [*service.hosts, *(() if provider.api_key_env else service.logins)]
    return found


def policy_of(places: Iterable[Place], *, upstream: Upstream | None = None) -> dict[str, Any]:
    """The policy file of a run's proxy."""
    hosts, networks, forwards = [], [], []
    for place in places:
        loopback = place.loopback
        if loopback is not None:
            # Programs do not ask a proxy for loopback, and theirs is not ours: the port is there for them.
            forwards.append([place.port, loopback, place.port])
            networks.append([loopback, place.port])
        elif place.network:
            networks.append([place.network, place.port])
        if place.host:
            hosts.append([place.host, place.port])
    return {
        "format": POLICY_FORMAT,
        "port": PROXY_PORT,
        "hosts": hosts,
        "networks": networks,
        "forwards": list({port: [port, *rest] for port, *rest in reversed(forwards)}.values()),
        "pinned": {},
        "upstream": upstream
        and {"host": upstream.host, "port": upstream.port, "direct": list(upstream.direct)},
    }


def upstream_of(environ: Mapping[str, str]) -> Upstream | None:
    """The machine's own proxy by the daemon's environment; none that needs a password, or is not http."""
    url = environ.get("HTTPS_PROXY") or environ.get("https_proxy") or ""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if not parts.hostname or parts.scheme != "http" or parts.username or parts.password:
            return None
        port = parts.port or 80
    except ValueError:
        return None
    listed = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    direct = (name.strip().lower().removeprefix("*").removeprefix(".") for name in listed.split(","))
    return Upstream(host=parts.hostname, port=port, direct=tuple(name for name in direct if name))


def environment_of(registries: Iterable[str]) -> dict[str, str]:
    """What tells the programs in a sandbox where their proxy is."""
    proxy = f"http://127.0.0.1:{PROXY_PORT}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    env = {spelled: proxy for name in names for spelled in (name, name.lower())}
    direct = "localhost,127.0.0.1,::1"
    env |= {"NO_PROXY": direct, "no_proxy": direct, "NODE_USE_ENV_PROXY": "1"}
    if "maven" in registries:  # Java looks at no variable but this
        options = [
            f"-D{scheme}.proxy{key}"
            for scheme in ("http", "https")
            for key in ("Host=127.0.0.1", f"Port={PROXY_PORT}")
        ]
        env["JAVA_TOOL_OPTIONS"] = " ".join(options)
    return env


# --- refusals ----------------------------------------------------------------------------------------------


def parse_refusals(log: bytes) -> tuple[Refusal, ...]:
    """What a run's log of refusals says, the most frequent first. Never raises, whatever is in it."""
    counts: dict[tuple[str, str], int] = {}
    for line in log.splitlines():
        found = _refusal(line)
        if found is not None:
            kind = (found.reason, found.target)
            counts[kind] = max(found.count, counts.get(kind, 0))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Refusal(reason=kind[0], target=kind[1], count=count) for kind, count in ordered)


def _refusal(line: bytes) -> Refusal | None:
    try:
        raw = json.loads(line)
        reason, target, count = raw["reason"], raw["target"], raw["count"]
    except (KeyError, RecursionError, TypeError, ValueError):
        return None
    if reason not in egress.REASONS or not isinstance(target, str) or type(count) is not int:
        return None
    return Refusal(reason=reason, target=egress.shown(target), count=max(1, min(count, 10**9)))


def advice(refusals: Sequence[Refusal]) -> str:
    """What the operator of a failed run has to know, in one sentence; empty without a refusal.

    The hosts in it were chosen by the agent: they are shown, and nothing is recommended blindly.
    """
    listed = [each for each in refusals if each.reason == egress.NOT_LISTED]
    shown = [each.target for each in (listed or refusals) if each.target][:3]
    if not shown:
        return ""
    more = len({each.target for each in refusals}) - len(shown)
    what = f"the agent was refused {', '.join(shown)}{f' and {more} more' if more > 0 else ''}"
    return f"{what}; {_remedy(shown)}" if listed else what


def _remedy(targets: Sequence[str]) -> str:
    """By the package registries where all of them belong to one."""
    registries = [_registry_of(target) for target in targets]
    if all(registries):
        names = ", ".join(f'"{name}"' for name in dict.fromkeys(filter(None, registries)))
        return f"if it is to reach that, add {names} to registries in [sandbox]"
    return "if it is to reach that, add it to allow_hosts in [sandbox]"


def _registry_of(target: str) -> str | None:
    host, _, port = target.rpartition(":")
    entries = {host} if port == "443" else {target}
    return next((name for name, hosts in REGISTRIES.items() if entries & set(hosts)), None)
