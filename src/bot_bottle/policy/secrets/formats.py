"""What the tokens of the common services look like. One line each; the order does not matter.

`pattern` matches the token in text from which everything between characters was taken out, so it counts characters instead
of asking for a word's end. `anchors` are beginnings (or other parts) that every token has: the cheap search looks for those.
Repetitions are bounded and stand behind letters that can't repeat in them, which keeps the automaton small.
"""

from collections.abc import Callable
from typing import NamedTuple

from bot_bottle.policy.secrets import checks

Check = Callable[[bytes, int, int], bytes | None]
"""The secret at the candidate from the first to the second number in the view, when it is a real one."""


class Format(NamedTuple):
    """`strict`: its checksum or structure is strong enough to look for it also where every other sign was taken out."""

    name: str
    anchors: tuple[str, ...]
    pattern: str
    check: Check
    strict: bool = False


def _whole(test: Callable[[bytes], bool]) -> Check:
    return lambda view, start, end: view[start:end] if test(view[start:end]) else None


def _behind(mark: bytes, test: Callable[[bytes], bool]) -> Check:
    """The part behind the first `mark` passes `test`."""
    return lambda view, start, end: view[start:end] if test(view[start:end].partition(mark)[2]) else None


def _aws_secret(view: bytes, _start: int, end: int) -> bytes | None:
    body = view[end : end + 40]
    is_word = len(body) == 40 and body.isascii() and body.translate(None, b"+/").isalnum()
    return body if is_word and checks.is_mixed(body) else None


W, A, X = "[A-Za-z0-9_-]", "[A-Za-z0-9]", "[0-9a-f]"
_JWT = ("eyJhbGciOi", "eyJ0eXAiOi", "eyJraWQiOi", "eyJjdHkiOi", "eyJlbmMiOi", "eyJqa3UiOi", "eyJ4NXQiOi")

FORMATS = (
    Format("github", ("gh[pousr]_",), f"gh[pousr]_{A}{{36}}", _whole(checks.is_crc_token), strict=True),
    Format(
        "github-fine-grained",
        ("github_pat_",),
        f"github_pat_{A}{{22}}_{A}{{59}}",
        _behind(b"_pat_", checks.is_mixed),
        strict=True,
    ),
    Format("npm", ("npm_",), f"npm_{A}{{36}}", _whole(checks.is_crc_token), strict=True),
    Format("aws-key-id", ("A[KS]IA",), "A[KS]IA[A-Z2-7]{16}", _behind(b"IA", checks.is_key_id)),
    Format(
        "aws-secret",
        ("[sS][eE][cC][rR][eE][tT]_?[aA][cC][cC][eE][sS][sS]_?[kK][eE][yY]",),
        "[sS][eE][cC][rR][eE][tT]_?[aA][cC][cC][eE][sS][sS]_?[kK][eE][yY][:=]+",
        _aws_secret,
    ),
    Format(
        "anthropic",
        ("sk-ant-",),
        f"sk-ant-[a-z]{{2,8}}[0-9]{{2}}-{W}{{60}}",
        _behind(b"sk-ant-", checks.is_mixed),
        strict=True,
    ),
    Format("openai", ("T3BlbkFJ",), f"T3BlbkFJ{W}{{20}}", checks.openai_around, strict=True),
    Format("google", ("AIzaSy",), f"AIzaSy{W}{{33}}", _behind(b"AIzaSy", checks.is_mixed), strict=True),
    Format(
        "private-key",
        ("-----BEGIN",),
        "-----BEGIN[A-Z0-9]{0,20}PRIVATEKEY(?:BLOCK)?-----",
        lambda view, _start, end: checks.key_behind(view, end),
    ),
    Format("slack", ("xox[abeoprs]-",), f"xox[abeoprs]-[0-9]{W}{{24}}", _behind(b"xox", checks.is_varied)),
    Format("slack-app", ("xapp-",), f"xapp-[0-9]-{W}{{40}}", _behind(b"xapp", checks.is_varied)),
    Format("stripe", ("[sr]k_live_",), f"[sr]k_live_{A}{{24}}", _behind(b"_live_", checks.is_mixed)),
    Format("gitlab", ("glpat-",), f"glpat-{W}{{20}}", _behind(b"glpat-", checks.is_mixed)),
    Format("twilio", ("SK[0-9a-f]{4}",), f"SK{X}{{32}}", _behind(b"SK", checks.is_hex_varied)),
    Format("sendgrid", (f"SG\\.{W}{{6}}",), f"SG\\.{W}{{22}}\\.{W}{{43}}", _behind(b"SG.", checks.is_mixed)),
    Format("huggingface", ("hf_",), "hf_[A-Za-z]{34}", _behind(b"_", checks.is_mixed)),
    Format(
        "pypi",
        ("pypi-AgE",),
        f"pypi-AgE[A-Za-z0-9]{{10}}{W}{{60}}",
        _behind(b"-", checks.is_mixed),
        strict=True,
    ),
    Format(
        "digitalocean",
        ("do[opr]_v1_",),
        f"do[opr]_v1_{X}{{64}}",
        _behind(b"_v1_", checks.is_hex_varied),
        strict=True,
    ),
    Format("jwt", _JWT, "eyJ[A-Za-z0-9_-]{8}", lambda view, start, _: checks.jwt_at(view, start)),
    Format(
        "age",
        ("AGE-SECRET-KEY-1",),
        "AGE-SECRET-KEY-1[AC-HJ-NP-Z02-9]{58}",
        _whole(checks.is_age_key),
        strict=True,
    ),
    Format("telegram", ("[0-9]{8}:AA",), f"[0-9]{{8}}:AA{W}{{33}}", _behind(b":", checks.is_mixed)),
    Format(
        "discord",
        (f"\\.{W}{{6}}\\.{W}{{27}}",),
        f"\\.{W}{{6}}\\.{W}{{27}}",
        checks.discord_around,
    ),
    Format(
        "azure-storage",
        ("AccountKey=",),
        "AccountKey=[A-Za-z0-9+/]{86}==",
        _behind(b"AccountKey=", checks.is_mixed),
    ),
    Format("docker", ("dckr_pat_",), f"dckr_pat_{W}{{27}}", _behind(b"dckr_pat_", checks.is_mixed)),
    Format("groq", ("gsk_",), f"gsk_{A}{{52}}", _behind(b"_", checks.is_mixed)),
    Format("vault", ("hvs\\.",), f"hvs\\.{W}{{24}}", _behind(b".", checks.is_mixed)),
)
