#!/usr/bin/env python3
"""Ask for known vulnerabilities of what the locks name; exit code 1 when there are some.

Where no service can be asked it says so and ends with 0, or with 69 under --required.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import _bootstrap

LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-audit.lock")
# Every service knows holes of this version. One that does not name them knows nothing: mirrors of the package
# registry answer without them, and pip-audit takes "never heard of" for "nothing known".
CANARY = "jinja2==2.11.2"
TIMEOUT_SECONDS = 300


def main() -> str:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("locks", nargs="*", type=Path, metavar="LOCK", help=f"default: {', '.join(LOCKS)}")
    parser.add_argument("--required", action="store_true", help="not to be able to ask is an error (69)")
    parser.add_argument("--osv-url", metavar="URL", help="ask a mirror of osv.dev, and nobody else")
    args = parser.parse_args()
    locks = args.locks or [_bootstrap.PROJECT_ROOT / name for name in LOCKS]
    service = next((each for each in _services(args.osv_url) if _knows_the_canary(each)), None)
    if service is None:
        return _not_asked(is_error=args.required)
    found = {line for lock in locks for line in _vulnerabilities(service, lock)}
    if found:
        sys.exit("\n".join(sorted(found)))
    return f"No known vulnerabilities in {', '.join(lock.name for lock in locks)} (asked: {service[-1]})"


def _services(osv_url: "str | None") -> "list[list[str]]":
    """The options of pip-audit for each that can be asked, the best first."""
    if osv_url:
        return [["--vulnerability-service", "osv", "--osv-url", osv_url]]
    return [["--vulnerability-service", "pypi"], ["--vulnerability-service", "osv"]]


def _knows_the_canary(service: "list[str]") -> bool:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "canary.txt"
        file.write_text(CANARY)
        answer = _pip_audit(service, "--no-deps", "--requirement", str(file))
    return answer is not None and bool(_named(answer))


def _not_asked(*, is_error: bool) -> str:
    sentence = (
        "Known vulnerabilities were NOT looked for: neither PyPI's nor OSV's list can be asked from here. "
        "Run `make audit REQUIRED=1` where there is a network."
    )
    if is_error:
        sys.exit(_bootstrap.complain(sentence, _bootstrap.EX_UNAVAILABLE))
    return sentence


def _vulnerabilities(service: "list[str]", lock: Path) -> "list[str]":
    answer = _pip_audit(service, "--require-hashes", "--requirement", str(lock))
    if answer is None:
        sys.exit(_bootstrap.complain(f"pip-audit did not finish for {lock.name}.", _bootstrap.EX_UNAVAILABLE))
    return _named(answer) + _unknown(answer)


def _pip_audit(service: "list[str]", *arguments: str) -> "list[dict[str, object]] | None":
    """What it says of each package, or None when it has no answer."""
    options = ["--disable-pip", "--timeout", "10", "--progress-spinner", "off", "--format", "json"]
    command = [sys.executable, "-m", "pip_audit", *options, *service, *arguments]
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        packages: list[dict[str, object]] = json.loads(ended.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None
    return packages


def _named(packages: "list[dict[str, object]]") -> "list[str]":
    lines = []
    for each in packages:
        for hole in each.get("vulns", ()):  # type: ignore[attr-defined]
            mended = ", ".join(hole["fix_versions"]) or "nothing yet"
            lines.append(f"{each['name']} {each['version']}: {hole['id']}, mended in {mended}")
    return lines


def _unknown(packages: "list[dict[str, object]]") -> "list[str]":
    """A package that was skipped has not been looked at: that is not the same as having no holes."""
    return [f"{each['name']}: {each['skip_reason']}" for each in packages if "skip_reason" in each]


if __name__ == "__main__":
    _bootstrap.enter("pydantic")
    _bootstrap.run(main, needs="pip_audit")
