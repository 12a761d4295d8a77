"""What tells a real token from a word that looks like one: checksums where the format has them, else its randomness. Pure."""

import binascii
import itertools
import json
import string
import zlib

_BASE62 = (string.digits + string.ascii_uppercase + string.ascii_lowercase).encode()
_BECH32 = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CLASSES = bytes(0 if chr(byte).isdigit() else 1 if chr(byte).islower() else 2 for byte in range(256))
_KEY_CONTEXT = 400


def is_crc_token(token: bytes) -> bool:
    """GitHub's and npm's: a prefix, 30 characters, and their CRC-32 in six digits of base 62."""
    body = token[token.index(b"_") + 1 :]
    rest = zlib.crc32(body[:-6])
    digits = bytearray()
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        digits.append(_BASE62[digit])
    return bytes(reversed(digits)) == body[-6:]


def is_age_key(token: bytes) -> bool:
    """Bech32 (BIP 173) of an age identity."""
    text = token.lower()
    prefix, _, data = text.rpartition(b"1")
    expanded = [byte >> 5 for byte in prefix] + [0] + [byte & 31 for byte in prefix]
    check = 1
    for value in (*expanded, *(_BECH32.find(byte) for byte in data)):
        if value < 0:
            return False
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_BECH32_GENERATORS):
            if top >> bit & 1:
                check ^= generator
    return check == 1


def is_mixed(body: bytes) -> bool:
    """Whether it jumps between digits, small and capital letters as random text does and words don't."""
    classes = body.translate(_CLASSES, b"-_+/.")
    jumps = sum(1 for one, other in itertools.pairwise(classes) if one != other)
    share = 5 if len(classes) < 30 or body.isalpha() else 3
    return jumps * share >= len(classes) and is_varied(body)


def is_varied(body: bytes) -> bool:
    """Whether it has as many different characters as random text would at least have."""
    return len(set(body)) >= min(10, len(body) // 2) and b"EXAMPLE" not in body


def is_key_id(body: bytes) -> bool:
    """Whether it is none of capital words in a row (one random id in thirty has no digit) or the numbers of a source map."""
    return not body.isalpha() and max(map(body.count, set(body))) <= 4 and is_varied(body)


def is_hex_varied(body: bytes) -> bool:
    """Random hexadecimal, and not a run of zeros or a counter."""
    return len(set(body)) >= 8


def key_behind(view: bytes, end: int) -> bytes | None:
    """A private key's text, when it stands behind its first line, and that line is not only talked of."""
    lines = view[end : end + _KEY_CONTEXT].partition(b"-----")[0]
    body = lines[-60:]
    return lines if len(body) == 60 and is_mixed(body) and len(set(body)) >= 20 else None


def jwt_at(view: bytes, start: int) -> bytes | None:
    """The JSON Web Token that begins there: a header with an algorithm, claims, perhaps a signature."""
    first = view.find(b".", start, start + 1024)
    second = view.find(b".", first + 1, first + 8192) if first > 0 else -1
    if second < 0:
        return None
    header = _json(view[start:first])
    if header is None or "alg" not in header or _json(view[first + 1 : second]) is None:
        return None
    return view[start:second]


def _json(part: bytes) -> dict[str, object] | None:
    try:
        found = json.loads(from_base64(part))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def openai_around(view: bytes, start: int, end: int) -> bytes | None:
    """The token in whose middle the candidate stands, when both halves are random."""
    first = view[max(0, start - 20) : start]
    is_word = len(first) == 20 and first.translate(None, b"-_").isalnum()
    return first + view[start:end] if is_word and is_mixed(first) and is_mixed(view[end - 20 : end]) else None


def discord_around(view: bytes, start: int, end: int) -> bytes | None:
    """The token whose second and third part are the candidate, when a user's number in base64 stands before them."""
    for length in (24, 26, 28):
        number = view[max(0, start - length) : start]
        if len(number) == length and number[:1] in (b"M", b"N", b"O"):
            try:
                text = from_base64(number)
            except ValueError:
                continue
            if 17 <= len(text) <= 20 and text.isdigit():
                return number + view[start:end]
    return None


def from_base64(part: bytes) -> bytes:
    """What `part` (either alphabet, with or without padding) stands for. Raises ValueError."""
    text = part.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
