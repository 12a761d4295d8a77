"""SHA-256 for short texts, without loading OpenSSL for it.

`hashlib` loads libcrypto first of all, which takes 4 ms of every start and half a mebibyte of every bottle. What CPython itself
falls back to is as good for fingerprints of a few kilobytes; where it is not there, hashlib is.
"""

try:
    from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]  # CPython 3.12 and newer
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found,no-redef,unused-ignore]  # CPython 3.11
    except ImportError:
        from hashlib import sha256


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of `data`, in hexadecimal."""
    digest: str = sha256(data).hexdigest()
    return digest
