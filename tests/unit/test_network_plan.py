"""What a run may reach, from the configuration; and what its operator is told after a refusal."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from adw_modules.config import parse_settings
from adw_modules.errors import ConfigError
from adw_modules.money.sellers import PRICE_LISTS
from adw_modules.security.egress import MALFORMED, NOT_LISTED, Asked, Policy, Refused
from adw_modules.security.network import (
    REGISTRIES,
    Place,
    Refusal,
    Upstream,
    advice,
    environment_of,
    knows_service,
    parse_place,
    parse_refusals,
    places_of,
    policy_of,
    upstream_of,
)


@dataclass(frozen=True)
class Provider:
    agent: str = "claude"
    price_list: str | None = None
    api_key_env: str | None = None
    pass_env: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()


def reachable(provider: Provider, env=None, hosts=(), registries=()) -> set[str]:
    places = places_of(provider, env or {}, hosts=hosts, registries=registries)
    return {f"{place.host or place.network}:{place.port}" for place in places}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Example.ORG", Place(host="example.org")),
        ("example.org:8443", Place(host="example.org", port=8443)),
        ("*.example.org", Place(host="*.example.org")),
        ("*.example.org:80", Place(host="*.example.org", port=80)),
        ("bücher.example", Place(host="xn--bcher-kva.example")),
        ("10.0.0.0/8", Place(network="10.0.0.0/8", port=0)),
        ("10.0.0.5", Place(network="10.0.0.5/32", port=0)),
        ("10.0.0.5:8443", Place(network="10.0.0.5/32", port=8443)),
        ("[fd00::1]:8443", Place(network="fd00::1/128", port=8443)),
        ("fd00::/8", Place(network="fd00::/8", port=0)),
        ("localhost:11434", Place(host="localhost", port=11434)),
        ("127.0.0.1:11434", Place(network="127.0.0.1/32", port=11434)),
        ("[::1]:11434", Place(network="::1/128", port=11434)),
    ],
)
def test_an_entry_of_the_allow_list_means(text, place):
    assert parse_place(text) == place


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*", 'network = "open"'),
        ("0.0.0.0/0", 'network = "open"'),
        ("::/0", 'network = "open"'),
        ("*.org", "too wide"),
        ("", "host name"),
        ("https://example.org", "port between"),
        ("example.org/path", "address or network"),
        ("a.*.example.org", "host name"),
        ("example.org:0", "port between"),
        ("example.org:65536", "port between"),
        ("example.org:https", "port between"),
        ("127.1", "address or network"),
        ("0x7f000001", "host name"),
        ("localhost", "needs a port"),
        ("127.0.0.1", "loopback"),
        ("127.0.0.0/8:80", "loopback"),
        ("[::1]", "loopback"),
        ("localhost:61080", "61080"),
        ("user@example.org", "host name"),
    ],
)
def test_an_entry_that_means_nothing_or_too_much_is_refused_with_a_sentence(text, words):
    with pytest.raises(ValueError, match=words):
        parse_place(text)


@pytest.mark.parametrize(
    ("provider", "env", "expected"),
    [
        (Provider(api_key_env="ANTHROPIC_API_KEY"), {}, {"api.anthropic.com:443"}),
        (
            Provider(),
            {},
            {
                f"{host}:443"
                for host in ("api.anthropic.com", "console.anthropic.com", "platform.claude.com", "claude.ai")
            },
        ),
        (Provider(agent="openrouter-cli", api_key_env="OPENROUTER_API_KEY"), {}, {"openrouter.ai:443"}),
        (Provider(agent="codex", api_key_env="OPENAI_API_KEY"), {}, {"api.openai.com:443"}),
        (
            Provider(agent="gemini", api_key_env="GEMINI_API_KEY"),
            {},
            {"generativelanguage.googleapis.com:443"},
        ),
        (Provider(agent="aider", api_key_env="DEEPSEEK_API_KEY"), {}, {"api.deepseek.com:443"}),
        (
            Provider(agent="goose", api_key_env="OPENROUTER_API_KEY", pass_env=("GROQ_API_KEY",)),
            {},
            {"openrouter.ai:443", "api.groq.com:443"},
        ),
        (Provider(agent="qwen", price_list="together", api_key_env="KEY"), {}, {"api.together.xyz:443"}),
        (Provider(agent="generic"), {}, set()),
        (Provider(agent="generic", price_list="none"), {}, set()),
        (Provider(agent="generic", allow_hosts=("models.corp:8443",)), {}, {"models.corp:8443"}),
        (
            Provider(api_key_env="ANTHROPIC_API_KEY"),
            {"ANTHROPIC_BASE_URL": "https://gateway.corp/anthropic"},
            {"gateway.corp:443"},
        ),
        (
            Provider(agent="aider", api_key_env="OPENAI_API_KEY"),
            {"OPENAI_API_BASE": "http://models.corp:8000/v1"},
            {"models.corp:8000"},
        ),
        (Provider(agent="generic"), {"OLLAMA_HOST": "localhost:11434"}, {"localhost:11434"}),
        (Provider(agent="generic"), {"X_BASE_URL": "not an address", "DB_HOST": "db:1"}, set()),
    ],
)
def test_a_provider_reaches_its_own_service_and_no_other(provider, env, expected):
    assert reachable(provider, env) == expected
    assert knows_service(provider, env) is bool(expected)


def test_registries_are_reached_only_where_the_operator_chose_them():
    provider = Provider(api_key_env="ANTHROPIC_API_KEY")
    assert reachable(provider, registries=["pypi"]) - reachable(provider) == {
        "pypi.org:443",
        "files.pythonhosted.org:443",
    }
    assert "deb.debian.org:80" in reachable(provider, registries=["debian"])


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_registry_is_made_of_entries_that_can_be_used(registry):
    for host in REGISTRIES[registry]:
        assert parse_place(host).host


@pytest.mark.parametrize("seller", [name for name in PRICE_LISTS if name not in {"none", "aws", "azure"}])
def test_every_seller_with_one_address_is_known(seller):
    assert knows_service(Provider(agent="generic", price_list=seller, api_key_env="KEY"), {})


def test_a_loopback_service_is_there_under_its_own_port_and_nothing_else_of_loopback_is():
    policy = policy_of(
        [parse_place("localhost:11434"), parse_place("127.0.0.1:11434"), parse_place("[::1]:8000")]
    )
    assert sorted(policy["forwards"]) == [[8000, "::1", 8000], [11434, "127.0.0.1", 11434]]
    judged = Policy.of(json.loads(json.dumps(policy)))
    judged.check_address(Asked("localhost", 11434, is_tunnel=True), "127.0.0.1")
    with pytest.raises(Refused):
        judged.check_address(Asked("localhost", 22, is_tunnel=True), "127.0.0.1")
    with pytest.raises(Refused):
        judged.check_request(Asked("localhost", 22, is_tunnel=True))


@pytest.mark.parametrize(
    ("environ", "upstream"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy.corp:3128"}, Upstream(host="proxy.corp", port=3128)),
        (
            {"https_proxy": "proxy.corp:3128", "no_proxy": ".corp, *.intern,localhost"},
            Upstream(host="proxy.corp", port=3128, direct=("corp", "intern", "localhost")),
        ),
        ({"HTTPS_PROXY": "http://user:secret@proxy.corp:3128"}, None),
        ({"HTTPS_PROXY": "socks5://proxy.corp:1080"}, None),
        ({"HTTPS_PROXY": "http://proxy.corp:nonsense"}, None),
    ],
)
def test_the_proxy_of_the_machine_is_used_where_it_needs_no_password(environ, upstream):
    assert upstream_of(environ) == upstream


def test_programs_are_told_where_their_proxy_is_in_every_way_they_understand():
    env = environment_of(["pypi"])
    assert env["HTTPS_PROXY"] == env["https_proxy"] == env["http_proxy"] == "http://127.0.0.1:61080"
    assert "127.0.0.1" in env["NO_PROXY"]
    assert "JAVA_TOOL_OPTIONS" not in env
    assert "-Dhttps.proxyPort=61080" in environment_of(["maven"])["JAVA_TOOL_OPTIONS"]


def line(reason=NOT_LISTED, target="pypi.org:443", count=1) -> bytes:
    return json.dumps({"reason": reason, "target": target, "count": count}).encode() + b"\n"


def test_the_log_of_refusals_is_read_by_its_last_counts_and_whatever_else_is_in_it():
    log = line() + line(count=2) + line(target="a.example:443") + line(count=4)
    noise = (
        b'{"reason": "not_listed"}\n[]\nnull\n'
        + line(reason="other")
        + line(target=3)
        + b"[" * 5000
        + b"\n\xff"
    )
    assert parse_refusals(log + noise) == (
        Refusal(reason=NOT_LISTED, target="pypi.org:443", count=4),
        Refusal(reason=NOT_LISTED, target="a.example:443", count=1),
    )


def test_a_host_from_the_log_can_say_nothing_but_its_name():
    (refusal,) = parse_refusals(line(target="@everyone `x` <b>\n[y](http://z)" + "a" * 500))
    assert len(refusal.target) <= 100
    assert not set(refusal.target) & set("@` <>\n()/")


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([], ""),
        (
            ["pypi.org:443", "files.pythonhosted.org:443"],
            (
                "the agent was refused pypi.org:443, files.pythonhosted.org:443; if it is to reach that, "
                'add "pypi" to registries in [sandbox]'
            ),
        ),
        (
            ["x.example:443", "pypi.org:443"],
            (
                "the agent was refused x.example:443, pypi.org:443; if it is to reach that, "
                "add it to allow_hosts in [sandbox]"
            ),
        ),
        (
            [f"{n}.example:443" for n in range(9)],
            (
                "the agent was refused 0.example:443, 1.example:443, 2.example:443 and 6 more; if it is to "
                "reach that, add it to allow_hosts in [sandbox]"
            ),
        ),
    ],
)
def test_the_operator_is_told_what_was_refused_and_how_to_allow_it(targets, expected):
    assert advice([Refusal(reason=NOT_LISTED, target=each, count=1) for each in targets]) == expected


def test_nobody_is_advised_to_allow_what_is_no_host():
    assert advice([Refusal(reason=MALFORMED, target="127.1:80", count=1)]) == "the agent was refused 127.1:80"


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("", ""),
        ('[sandbox]\nnetwork = "open"', "what a stranger has written"),
        ('[sandbox]\nnetwork = "none"', ""),
        ('[sandbox]\nmode = "off"\nnetwork = "open"', ""),
        ('[providers.x]\ncommand_template = ["x"]\nagent = "generic"', "nobody here knows the service"),
        ('[providers.x]\ncommand_template = ["x"]\nagent = "generic"\nallow_hosts = ["x.example"]', ""),
        ('[providers.x]\ncommand_template = ["x"]\nagent = "generic"\npass_env = ["X_BASE_URL"]', ""),
        ('[providers.x]\ncommand_template = ["x"]\nagent = "generic"\nenabled = false', ""),
    ],
)
def test_a_network_that_is_probably_not_meant_is_warned_of(toml, words):
    warnings = parse_settings(toml, source="config.toml").warnings()
    assert len(warnings) == bool(words)
    assert all(words in each for each in warnings)


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        (
            '[sandbox]\nallow_hosts = ["*"]',
            'sandbox.allow_hosts[#1] would allow every host; for that set network = "open" in [sandbox]',
        ),
        ('[sandbox]\nregistries = ["pip"]', "sandbox.registries[#1] must be "),
        (
            '[sandbox]\nnetwork = "closed"',
            'sandbox.network must be "open" or "allow-list" or "none", not "closed".',
        ),
    ],
)
def test_a_wrong_entry_gets_one_sentence(toml, sentence):
    with pytest.raises(ConfigError) as refused:
        parse_settings(toml, source="config.toml")
    assert f"config.toml, line 2: {sentence}" in str(refused.value)
