"""Our short way to SHA-256 is SHA-256."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.digest import sha256_hex


@given(st.binary(max_size=5000))
def test_it_is_what_hashlib_says(data):
    assert sha256_hex(data) == hashlib.sha256(data).hexdigest()
