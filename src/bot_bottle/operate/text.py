"""Text that an agent wrote, made fit to be shown: nothing in it can move the cursor, hide, or reorder what is read."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f"
"""Characters that count as printable and show as nothing, as they stand in a set of a regular expression."""
MARKS = 2
"""Marks that may stand on one letter; Vietnamese needs two."""


def visible(text: str, *, keep: str = "") -> str:
    r"""`text` with every control, format and bidi character as its escape (`\x1b`, `\u202e`), but for those in `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else escape(c) for c in text)


def visible_bytes(data: bytes, *, keep: str = "\n\t") -> str:
    """`data` as `visible` text; bytes that are no UTF-8 show as their escape."""
    return visible(data.decode("utf-8", "backslashreplace"), keep=keep)


def visible_parts() -> "Callable[[bytes], bytes]":
    """Like `visible_bytes`, for output that comes in parts: a character may be cut in two."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    return lambda data: visible(decoder.decode(data).replace("\r\n", "\n"), keep="\n\t").encode()


def path_text(path: str) -> str:
    """A path, whatever bytes its name has, as text that can be printed and put into JSON."""
    return visible_bytes(path.encode("utf-8", "surrogateescape"), keep="")


def escape(character: str) -> str:
    """The character's escape, as in Python's text."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
