"""Which characters nobody sees, and how to take them out of a text.

Owns the list of code points; `sanitise` owns what is hidden by markup. The list is a superset of Unicode's
Cf, Cc, Co, Cs, Zl, Zp, the non-characters and Default_Ignorable_Code_Point, but for tab and line feed, and
of four letters that are drawn as nothing. A test holds it to `unicodedata`.
"""

from __future__ import annotations

import re

# Written out: to ask unicodedata about each of 1.1 million code points would cost a third of a second.
_RANGES = (
    "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u034f\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2"
    "\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u2800\\u3164"
    "\\ud800-\\uf8ff\\ufdd0-\\ufdef\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb\\ufffe\\uffff"
    "\\U000110bd\\U000110cd\\U00013430-\\U0001345f\\U0001bca0-\\U0001bca3\\U0001d159\\U0001d16f"
    "\\U0001d173-\\U0001d17a"
    + "".join(f"\\U000{plane:x}fffe\\U000{plane:x}ffff" for plane in range(1, 14))
    + "\\U000e0000-\\U000e0fff\\U000efffe-\\U0010ffff"
)
INVISIBLE = re.compile(f"[{_RANGES}]")
_RUN = re.compile(f"[{_RANGES}]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]+")  # all of them that ASCII has

# Beside an emoji one of these is how keyboards write it; without it the emoji stays, a little plainer.
_EMOJI = (
    "\\u203c\\u2049\\u2122\\u2139\\u2190-\\u27ff\\u2900-\\u2bff\\u3030\\u303d\\u3297\\u3299"
    "\\U0001f000-\\U0001faff"
)
_BESIDE_EMOJI = re.compile(
    f"(?<=[#*0-9\\u00a9\\u00ae])\\ufe0f|(?<=[{_EMOJI}])(?:[\\ufe0e\\ufe0f]\\u200d?|\\u200d)"
)
# Each of them ends a line or a word for some program; nothing in their place would join two words.
_BREAKS = frozenset("\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029")


def without_invisible(text: str) -> tuple[str, int]:
    """The text without what nobody sees, and how many pieces (runs of such characters) it had.

    What belongs to an emoji, and a mark of the byte order at the very start, go without being counted.
    """
    if text.isascii():
        return _CONTROLS.subn(_in_its_place, text)
    text = _BESIDE_EMOJI.sub("", text.removeprefix("\ufeff"))
    return _RUN.subn(_in_its_place, text)


def _in_its_place(run: re.Match[str]) -> str:
    return " " if any(character in _BREAKS for character in run[0]) else ""
