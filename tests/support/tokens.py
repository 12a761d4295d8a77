"""Made-up tokens of the formats that are searched for: right in form and checksum, and of no use to anybody."""

import base64
import json
import random
import string
import zlib
from collections.abc import Callable

ALNUM = string.ascii_letters + string.digits
WORD = ALNUM + "_-"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def _base62(number: int) -> str:
    digits = string.digits + string.ascii_uppercase + string.ascii_lowercase
    made = ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        made = digits[digit] + made
    return made


def _some(chance: random.Random, alphabet: str, count: int) -> str:
    return "".join(chance.choice(alphabet) for _ in range(count))


def crc_token(prefix: str, chance: random.Random) -> str:
    body = _some(chance, ALNUM, 30)
    return f"{prefix}_{body}{_base62(zlib.crc32(body.encode()))}"


def age_key(chance: random.Random) -> str:
    """As BIP 173 describes it, written from there."""
    data = [chance.randrange(32) for _ in range(52)]
    prefix = "age-secret-key-"
    values = [ord(char) >> 5 for char in prefix] + [0] + [ord(char) & 31 for char in prefix] + data + [0] * 6
    check = 1
    for value in values:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    check ^= 1
    data += [check >> 5 * (5 - place) & 31 for place in range(6)]
    return (prefix + "1" + "".join(_BECH32[value] for value in data)).upper()


def jwt(chance: random.Random) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": _some(chance, ALNUM, 12), "admin": True})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*texts, _some(chance, WORD, 43)])


def private_key(chance: random.Random) -> str:
    lines = [_some(chance, ALNUM + "+/", 64) for _ in range(12)]
    return "\n".join(["-----BEGIN RSA PRIVATE KEY-----", *lines, "-----END RSA PRIVATE KEY-----"])


def _aws_id(chance: random.Random) -> str:
    while True:
        body = _some(chance, string.ascii_uppercase + "234567", 16)
        if not body.isalpha() and max(map(body.count, body)) <= 4 and len(set(body)) >= 8:
            return "AKIA" + body


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "github": lambda chance: crc_token(chance.choice(("ghp", "gho", "ghu", "ghs", "ghr")), chance),
    "github-fine-grained": lambda chance: f"github_pat_{_some(chance, ALNUM, 22)}_{_some(chance, ALNUM, 59)}",
    "npm": lambda chance: crc_token("npm", chance),
    "aws-key-id": _aws_id,
    "aws-secret": lambda chance: f'"SecretAccessKey": "{_some(chance, ALNUM + "+/", 40)}"',
    "anthropic": lambda chance: f"sk-ant-api03-{_some(chance, WORD, 93)}AA",
    "openai": lambda chance: f"sk-proj-{_some(chance, ALNUM, 40)}T3BlbkFJ{_some(chance, ALNUM, 40)}",
    "google": lambda chance: f"AIzaSy{_some(chance, WORD, 33)}",
    "private-key": private_key,
    "slack": lambda chance: f"xoxb-{_some(chance, string.digits, 12)}-{_some(chance, ALNUM, 24)}",
    "slack-app": lambda chance: f"xapp-1-A{_some(chance, string.digits, 10)}-{_some(chance, ALNUM, 40)}",
    "stripe": lambda chance: f"{chance.choice('sr')}k_live_{_some(chance, ALNUM, 24)}",
    "gitlab": lambda chance: f"glpat-{_some(chance, WORD, 20)}",
    "twilio": lambda chance: f"SK{_some(chance, '0123456789abcdef', 32)}",
    "sendgrid": lambda chance: f"SG.{_some(chance, WORD, 22)}.{_some(chance, WORD, 43)}",
    "huggingface": lambda chance: f"hf_{_some(chance, string.ascii_letters, 34)}",
    "pypi": lambda chance: f"pypi-AgEIcHlwaS5vcmc{_some(chance, WORD, 140)}",
    "digitalocean": lambda chance: f"dop_v1_{_some(chance, '0123456789abcdef', 64)}",
    "jwt": jwt,
    "age": age_key,
    "telegram": lambda chance: f"{_some(chance, '123456789', 10)}:AA{_some(chance, WORD, 33)}",
    "discord": lambda chance: ".".join(
        (
            base64.b64encode(_some(chance, "1234567", 18).encode()).decode(),
            _some(chance, ALNUM, 6),
            _some(chance, WORD, 38),
        )
    ),
    "azure-storage": lambda chance: f"AccountKey={_some(chance, ALNUM + '+/', 86)}==",
    "docker": lambda chance: f"dckr_pat_{_some(chance, WORD, 27)}",
    "groq": lambda chance: f"gsk_{_some(chance, ALNUM, 52)}",
    "vault": lambda chance: f"hvs.{_some(chance, WORD, 24)}",
}
"""By the name of the detector that finds it."""
