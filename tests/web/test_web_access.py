"""Links are good once and not for long; a session has two secrets and an end."""

from bot_bottle.web.access import IDLE_SECONDS, LINK_SECONDS, LINKS, SESSIONS, WRONG_TRIES, Access


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_link_is_good_once():
    access = Access()
    key = access.new_link()
    assert access.enter(key) is not None
    assert access.enter(key) is None


def test_a_link_expires():
    clock = Clock()
    access = Access(clock=clock)
    key, other = access.new_link(), access.new_link()
    clock.now += LINK_SECONDS - 1
    assert access.enter(key) is not None
    clock.now += 1
    assert access.enter(other) is None


def test_no_key_is_like_another_and_all_are_too_long_to_be_guessed():
    keys = {Access().new_link() for _ in range(50)}
    assert len(keys) == 50
    assert min(map(len, keys)) >= 43


def test_only_so_many_links_are_good_at_once_the_latest():
    access = Access()
    keys = [access.new_link() for _ in range(LINKS + 1)]
    assert access.enter(keys[0]) is None
    assert all(access.enter(key) for key in keys[1:])


def test_who_guesses_voids_the_links_which_is_told_once():
    access = Access()
    key = access.new_link()
    for _ in range(WRONG_TRIES - 1):
        assert access.enter("x" * 43) is None
    assert not access.void
    access.enter("")
    assert access.void
    assert access.enter(key) is None
    assert not access.void
    assert access.enter(access.new_link()) is not None


def test_a_session_needs_both_its_secrets():
    access = Access()
    entry, other = access.enter(access.new_link()), access.enter(access.new_link())
    assert access.session(entry.cookie, entry.session.page_key) is entry.session
    assert access.session(entry.cookie, "") is None
    assert access.session("", entry.session.page_key) is None
    assert access.session(entry.cookie, other.session.page_key) is None
    assert access.session(entry.cookie, "ä\udcff") is None


def test_a_browser_that_has_a_session_keeps_it_with_a_further_link():
    access = Access()
    entry = access.enter(access.new_link())
    again = access.enter(access.new_link(), entry.cookie)
    assert again.session is entry.session
    assert again.cookie == entry.cookie


def test_nobody_chooses_the_cookie_of_a_session():
    access = Access()
    entry = access.enter(access.new_link(), "chosen-by-somebody")
    assert entry.cookie != "chosen-by-somebody"
    assert access.session("chosen-by-somebody", entry.session.page_key) is None


def test_an_idle_session_ends_and_one_with_an_open_page_does_not():
    clock = Clock()
    access = Access(clock=clock)
    idle, open_ = access.enter(access.new_link()), access.enter(access.new_link())
    open_.session.streams = 1
    clock.now += IDLE_SECONDS
    assert access.session(idle.cookie, idle.session.page_key) is None
    assert access.session(open_.cookie, open_.session.page_key) is open_.session


def test_there_are_so_many_sessions_and_the_longest_unused_gives_way():
    clock = Clock()
    access = Access(clock=clock)
    entries = []
    for _ in range(SESSIONS + 1):
        clock.now += 1
        entries.append(access.enter(access.new_link()))
    held = [access.session(entry.cookie, entry.session.page_key) is not None for entry in entries]
    assert held == [False] + [True] * SESSIONS


def test_a_session_that_was_left_is_none():
    access = Access()
    entry = access.enter(access.new_link())
    access.leave(entry.session)
    assert access.session(entry.cookie, entry.session.page_key) is None
    assert not access.holds(entry.session)
