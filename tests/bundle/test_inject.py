"""A credential stands in a request once, in the place of whatever the agent put there, and nowhere else."""

from urllib.parse import parse_qsl

from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.bundle.egress.credentials import Credentials
from bot_bottle.bundle.egress.inject import inject
from bot_bottle.bundle.model import Injection
from bot_bottle.secret import Secret
from tests.bundle.harness import in_header

QUERY = Injection("query", "api_key", Secret("s3 cr&t=/ü"), Secret("s3 cr&t=/ü"))
BEARER = Injection("header", "authorization", Secret("Bearer s3cret"), Secret("s3cret"))


def parameters(target: bytes) -> list[tuple[str, str]]:
    return parse_qsl(target.partition(b"?")[2].decode(), keep_blank_values=True)


def test_a_parameter_is_replaced_in_every_spelling_and_not_doubled() -> None:
    agent = b"/search?q=1&api_key=mine&API_KEY=mine&%61pi%5Fkey=mine&api_key&x=a;api_key=mine&q=2"
    target, headers = inject(agent, [(b"accept", b"*/*")], QUERY)
    assert parameters(target) == [("q", "1"), ("q", "2"), ("api_key", "s3 cr&t=/ü")]
    assert target.startswith(b"/search?q=1&")
    assert headers == [(b"accept", b"*/*")]


def test_a_target_without_a_query_gets_one() -> None:
    assert inject(b"/", [], QUERY)[0] == b"/?api_key=s3%20cr%26t%3D%2F%C3%BC"
    assert inject(b"/?", [], QUERY)[0] == b"/?api_key=s3%20cr%26t%3D%2F%C3%BC"


@given(
    st.lists(st.tuples(st.sampled_from(["api_key", "Api_Key", "q", "api"]), st.text(max_size=5)), max_size=6)
)
def test_whatever_the_query_the_parameter_is_there_once(pairs: list[tuple[str, str]]) -> None:
    from urllib.parse import urlencode

    target, _ = inject(b"/x?" + urlencode(pairs).encode(), [], QUERY)
    found = parameters(target)
    assert [value for name, value in found if name.lower() == "api_key"] == ["s3 cr&t=/ü"]
    kept = [(name, value) for name, value in pairs if name.lower() != "api_key"]
    assert [pair for pair in found if pair[0].lower() != "api_key"] == kept


def test_who_the_agent_says_that_it_is_never_goes_along() -> None:
    agent = [
        (b"authorization", b"Bearer mine"),
        (b"x-api-key", b"mine"),
        (b"authorization", b"Basic mine"),
        (b"cookie", b"session=mine"),
        (b"x-other", b"1"),
    ]
    assert inject(b"/", agent, BEARER) == (b"/", [(b"x-other", b"1"), (b"authorization", b"Bearer s3cret")])
    assert inject(b"/", agent, in_header("X-Mine", "s3"))[1] == [(b"x-other", b"1"), (b"X-Mine", b"s3")]
    assert inject(b"/", agent, QUERY)[1] == [(b"x-other", b"1")]


def test_a_refused_login_is_said_once_a_minute_and_only_of_what_can_be_renewed() -> None:
    said: list[object] = []
    fixed, login = in_header("x", "1"), in_header("x", "2", renewable=True)
    credentials = Credentials({"fixed": fixed, "login": login})
    credentials.tell = said.append
    for name, status in (("fixed", 401), (None, 401), ("other", 401), ("login", 200), ("login", 403)):
        credentials.refused(name, status)
    assert said == []
    for _ in range(100):
        credentials.refused("login", 401)
    assert said == [{"credential_refused": "login"}]


def test_credentials_change_all_at_once_or_not_at_all_and_the_old_stay_secrets() -> None:
    old, new = in_header("x", "old", placeholder="held"), in_header("x", "new", placeholder="held")
    credentials = Credentials({"a": old, "b": old})
    changes: list[int] = []
    credentials.changed = lambda: changes.append(1)
    try:
        credentials.replace({"a": new.document(), "b": ["header", "x"]})
    except ValueError:
        pass
    assert dict(credentials) == {"a": old, "b": old}
    assert changes == []
    credentials.replace({"a": new.document(), "b": old.document()})
    assert dict(credentials) == {"a": new, "b": old}
    assert credentials.retired == (old._replace(placeholder=""),), (
        "the placeholder stands for the new one now"
    )
    assert changes == [1]


def test_nor_in_a_spelling_that_servers_take_for_the_same_field() -> None:
    agent = [(b"x_api_key", b"mine"), (b"x-api_key", b"mine"), (b"x_mine", b"mine"), (b"a_b", b"1")]
    assert inject(b"/", agent, in_header("X-Mine", "s3"))[1] == [(b"a_b", b"1"), (b"X-Mine", b"s3")]
    assert inject(b"/", agent, QUERY)[1] == [(b"x_mine", b"mine"), (b"a_b", b"1")]
