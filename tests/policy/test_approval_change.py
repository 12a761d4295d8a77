"""What an ask would change: the least that lets it through, computed here, in one spelling, whatever the agent wrote."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.policy import approval_effect
from bot_bottle.policy.approval import TOOLS, Ask, Grant, Proposal, Terms
from bot_bottle.policy.approval_change import Standing, change_for, effective
from bot_bottle.policy.approval_cover import covers, package, place, registered, variant
from bot_bottle.policy.approval_effect import Refusals, effect
from bot_bottle.policy.approval_intake import ask_of, held_ask
from bot_bottle.policy.approval_show import changed, digest, grant_id, shown, title
from bot_bottle.policy.approval_text import clean
from bot_bottle.policy.difference import difference
from bot_bottle.policy.egress import decide, decide_request
from bot_bottle.policy.model import EgressPolicy, Route, SecretsPolicy, Upstream
from bot_bottle.policy.sinks import SINKS, sink
from bot_bottle.policy.sound import flaws

NAMES = ("a.example.org", "b.example.org", "example.org", "docs.example.net", "x.a.example.org")
NOTHING = Standing()
METHODS = ("GET", "POST", "HEAD")
PATHS = ("/", "/a", "/a/b", "/a/b/c", "/z")
HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07", "\u202egnp.exe", "a\u200bb\u2060c", "<script>alert(1)</script>", "x" * 1_000_000, "a\0b", "\ud800",
    "[bold red]hi[/]", "line\nAPPROVED by the operator\r\nline", "e\u0301" + "\u0301" * 500, "\u3164\u115f\uffa0",
    "\U000e0041\U000e0042",
    "\u2066isolate\u2069", "\ufeff", "\u2028\u2029", "\x9b31m",
    "\ufe0f" * 50, "🏴\U000e0067\U000e007f", "%s%n{0}", "`rm -rf`", "\u00ad",
)  # fmt: skip

routes = st.builds(
    Route,
    host=st.sampled_from((*NAMES, "*.example.org", "*.a.example.org")),
    port=st.sampled_from((443, 80, 8443)),
    protocol=st.sampled_from(("https", "http")),
    methods=st.lists(st.sampled_from(METHODS), max_size=2, unique=True).map(
        lambda found: tuple(sorted(found))
    ),
    paths=st.lists(st.sampled_from((*PATHS, "/a/**", "/*")), max_size=2, unique=True).map(
        lambda found: tuple(sorted(found))
    ),
    upstream=st.none(),
    credential=st.none(),
    headers=st.just(()),
    scan=st.just(True),
    grant=st.just(""),
    once=st.just(False),
)
policies = st.lists(routes, max_size=4).map(lambda found: EgressPolicy(tuple(found)))
asks = st.fixed_dictionaries(
    {},
    optional={
        "hosts": st.lists(st.sampled_from(NAMES), max_size=3),
        "urls": st.lists(
            st.builds(
                "{}://{}{}".format,
                st.sampled_from(("https", "http")),
                st.sampled_from(NAMES),
                st.sampled_from(PATHS),
            ),
            max_size=3,
        ),
        "methods": st.lists(st.sampled_from(METHODS), max_size=2),
        "port": st.sampled_from((443, 8443)),
    },
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def places(ask: Ask):
    """Every single thing that an ask is about: host, port, protocol, method, path."""
    for url in ask.subject["wanted"]:
        protocol, _, rest = url.partition("://")
        authority, slash, path = rest.partition("/")
        host, _, port = authority.partition(":")
        number = int(port) if port else {"https": 443, "http": 80}[protocol]
        for method in ask.subject["methods"] or ("GET", "PUT"):
            yield host, number, protocol, method, slash + path


def allows(policy, host, port, protocol, method, path):
    place = {"host": host, "port": port, "protocol": protocol}
    return decide_request(
        policy, **place, method=method.encode(), target=(path or "/any/thing").encode(), headers=()
    ).allowed


@given(policies, asks)
def test_what_is_added_lets_through_exactly_what_was_asked(policy, arguments):
    ask = ask_of("pipelock-block", arguments)
    if isinstance(ask, str):
        assert not arguments.get("hosts")
        assert not arguments.get("urls")
        return
    found = change_for(ask, Standing(policy, policy))
    if found.problem:
        assert "another protocol" in found.problem
        return
    new = effective(policy, [(Grant("g1", "p1", "run", "bottle", (), 0.0), found.routes)])
    assert not flaws(new)
    wanted = set(places(ask))
    for host, port, protocol, method, path in wanted:
        assert allows(new, host, port, protocol, method, path)
    asked_hosts = {(host, port, protocol) for host, port, protocol, *_ in wanted}
    for host in (*NAMES, "other.example.org", "evil.example"):
        for port in (443, 80, 8443):
            for protocol in ("https", "http", "tcp"):
                if (host, port, protocol) not in asked_hosts:
                    before, after = (
                        decide(each, host=host, port=port, protocol=protocol).allowed
                        for each in (policy, new)
                    )
                    assert before == after
    for (
        host,
        port,
        protocol,
    ) in asked_hosts:  # a path or method that nobody asked for is allowed only where it was
        whole = any(path == "" for h, p, k, _, path in wanted if (h, p, k) == (host, port, protocol))
        if not whole and not allows(policy, host, port, protocol, "GET", "/secret"):
            assert not allows(new, host, port, protocol, "GET", "/secret")
        if ask.subject["methods"] and not allows(policy, host, port, protocol, "DELETE", "/a"):
            assert not allows(new, host, port, protocol, "DELETE", "/a")


@given(policies, asks)
def test_what_is_in_force_is_not_asked_for_again(policy, arguments):
    ask = ask_of("pipelock-block", arguments)
    if isinstance(ask, str):
        return
    first = change_for(ask, Standing(policy, policy))
    if first.problem or not first.routes:
        return
    new = effective(policy, [(Grant("g1", "p1", "run", "bottle", (), 0.0), first.routes)])
    again = change_for(ask, Standing(policy, new))
    assert (again.routes, again.problem) == ((), "")
    assert again.allowed


@given(routes, routes, st.sampled_from(NAMES), st.sampled_from(METHODS), st.sampled_from(PATHS))
def test_a_route_that_covers_another_allows_all_that_it_does(one, other, host, method, path):
    if not covers(one, other):
        return
    place = (host, other.port, other.protocol, method, path)
    if allows(EgressPolicy((other,)), *place):
        assert allows(EgressPolicy((one,)), *place)


@given(policies, st.lists(routes, min_size=1, max_size=3))
def test_without_its_grants_a_policy_is_its_base(policy, granted):
    assert effective(policy, []) == policy
    grant = Grant("g1", "p1", "run", "once", (), 0.0)
    new = effective(policy, [(grant, granted)])
    added, removed = difference(policy, new)
    assert removed == []
    assert len(set(added)) <= len(granted)
    assert all(route.once and route.grant == "g1" for route in new.routes if route not in policy.routes)


@given(st.sampled_from((*TOOLS, "policy", "", "approve")), anything)
def test_whatever_a_tool_is_called_with_it_is_an_ask_or_a_sentence(tool, arguments):
    found = ask_of(tool, arguments)
    if isinstance(found, str):
        assert found
        return
    assert json.loads(json.dumps(dict(found.subject))) == dict(found.subject)
    assert len(json.dumps(dict(found.subject))) < 20_000
    assert not change_for(found, Standing()).problem or found.kind in ("egress", "credential")


@given(anything)
def test_whatever_a_bundle_says_is_held_it_is_an_ask_or_nothing(said):
    message = (
        said
        if isinstance(said, dict)
        else {"host": said, "port": 443, "protocol": "https", "kind": "request"}
    )
    found = held_ask(message)
    assert found is None or found.kind in ("request", "secret")


def is_harmless(text: str) -> bool:
    return all(
        character.isprintable()
        and unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        for character in text
    )


@given(st.text() | st.sampled_from(HOSTILE) | st.binary(), st.integers(1, 300))
def test_cleaned_text_is_one_bounded_harmless_paragraph(text, longest):
    shown_text = clean(text, longest)
    assert len(shown_text) <= longest
    assert is_harmless(shown_text)
    assert clean(shown_text, longest) == shown_text
    assert "  " not in shown_text


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_words_change_nothing_but_themselves(text):
    plain, hostile = (
        ask_of("pipelock-block", {"hosts": ["a.example.org"], "reason": reason}) for reason in ("", text)
    )
    assert plain.content() == hostile.content()
    assert is_harmless(hostile.words)
    assert len(hostile.words) <= 2000
    packages = ask_of("capability-block", {"packages": [text, "jq"], "change": text})
    assert is_harmless(json.dumps(dict(packages.subject), ensure_ascii=False))


def test_text_that_is_no_harm_stays_as_it_is():
    for text in (
        "I need the manual.",
        "Müller & Söhne, naïve café",
        "日本語のテキスト",
        "emoji 🙂 too",
        "a\u0301b",
    ):
        assert clean(text) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"hosts": ["Docs.Example.NET."]}, {"urls": ["https://docs.example.net:443/"]}),
        ({"hosts": ["bücher.example"]}, {"hosts": ["xn--bcher-kva.example"]}),
        (
            {"hosts": ["a.example.org", "b.example.org"]},
            {"hosts": ["b.example.org", "a.example.org", "a.example.org"]},
        ),
        (
            {"hosts": ["a.example.org"], "methods": ["get", "POST"]},
            {"hosts": ["a.example.org"], "methods": ["POST", "GET"]},
        ),
        ({"urls": ["https://a.example.org/x%41?q=1#f"]}, {"urls": ["https://a.example.org/xA"]}),
        ({"hosts": ["a.example.org:8443"]}, {"hosts": ["a.example.org"], "port": 8443}),
    ],
)
def test_two_spellings_of_one_thing_are_one_ask(one, other):
    assert ask_of("pipelock-block", one).content() == ask_of("pipelock-block", other).content()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.example.org/",
        "https://",
        "https://user:pw@a.example.org/",
        "https://a.example.org/%2e%2e/x",
        "https://a.example.org/a/../b",
        "https://a.example.org/a%2fb",
        "https://a.example.org:0/",
        "https://a.example.org:99999/",
        "//a.example.org/",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://a.example.org\\@evil.example/",
        "https://a.example.org/\u202e",
        "javascript:alert(1)",
        "https://a.example.org /x",
        "https://a.example.org\0.evil.example/",
        "https://*.example.org/",
    ],
)
def test_urls_that_mean_more_than_one_thing_can_t_be_asked_for(url):
    assert isinstance(ask_of("pipelock-block", {"urls": [url]}), str)


def test_where_tls_can_t_be_opened_a_path_can_t_be_kept_apart():
    ask = ask_of("pipelock-block", {"urls": ["https://a.example.org/x"], "methods": ["GET"]})
    assert change_for(ask, Standing(trusts=False)).routes == (Route("a.example.org", 443),)
    assert change_for(ask, Standing()).routes == (
        Route("a.example.org", 443, methods=("GET",), paths=("/x",)),
    )


def test_one_s_own_network_is_opened_by_the_file_alone():
    ask = ask_of("pipelock-block", {"hosts": ["db.internal"]})
    assert "not the name of a public server" in change_for(ask, Standing()).problem
    base = EgressPolicy((Route("db.internal", 443, upstream=Upstream("10.0.0.1", 443), paths=("/a",)),))
    [route] = change_for(ask, Standing(base, base)).routes
    assert route.upstream == Upstream("10.0.0.1", 443)


def proposal(*hosts: str, run: str = "run") -> Proposal:
    ask = ask_of("pipelock-block", {"hosts": list(hosts)})
    return Proposal("p1", run, ask, change_for(ask, Standing()).routes, "pending", 0.0, 9e9)


def show(
    one: Proposal,
    standing: Standing = NOTHING,
    terms: Terms | None = None,
    refusals: Refusals | None = None,
):
    return shown(one, standing, terms, agent="a", bottle="b", refusals=refusals or Refusals())


def test_the_digest_is_of_everything_that_was_shown_of_the_change():
    one = proposal("a.example.org")
    base = EgressPolicy((Route("b.example.org", 443),))
    seen = {
        show(one).digest,
        show(one, terms=Terms("once")).digest,
        show(one, terms=Terms("time", 60)).digest,
        show(one, terms=Terms("time", 61)).digest,
        show(one, terms=Terms("manifest")).digest,
        show(one, terms=Terms(routes=one.routes)).digest,
        show(one, terms=Terms(routes=(Route("*.example.org", 443),))).digest,
        show(one, terms=Terms(routes=(one.routes[0]._replace(scan=False),))).digest,
        show(one, Standing(base, base)).digest,
        show(one, Standing(base._replace(secrets=SecretsPolicy()), base)).digest,
        show(one._replace(id="p2")).digest,
        show(one._replace(run="other")).digest,
        show(proposal("a.example.org", "c.example.org")).digest,
    }
    assert len(seen) == 13
    words = one._replace(ask=one.ask._replace(words="please"), repeats=7)
    assert show(words).digest == show(one).digest


@given(policies, st.lists(routes, min_size=1, max_size=3))
def test_what_is_shown_is_what_would_be_in_force(policy, granted):
    one = Proposal(
        "p1", "run", Ask("egress", {"wanted": [], "methods": []}), tuple(granted), "pending", 0.0, 9e9
    )
    standing = Standing(policy, policy)
    looked = show(one, standing)
    change = changed(standing, one, looked.terms)
    assert (change.old, difference(policy, change.new)) == (
        policy,
        (list(looked.added), list(looked.removed)),
    )
    added, removed = looked.added, looked.removed
    assert looked.digest == digest(one, standing, looked.terms, added, removed)
    assert grant_id("pabc") == "gabc"


def test_a_line_that_another_approval_allows_meanwhile_is_shown_as_well():
    base = EgressPolicy()
    one = proposal("a.example.org", "b.example.net")
    for scope in ("once", "bottle"):
        other = Grant("gother", "pother", "run", scope, (), 0.0)
        standing = Standing(base, effective(base, [(other, (Route("a.example.org", 443),))]))
        looked = show(one, standing)
        assert looked.added == ("- {host: a.example.org}", "- {host: b.example.net}")
        assert (looked.digest, looked.problem) == (show(one).digest, "")
        alone = show(proposal("a.example.org"), standing)
        assert alone.problem == (
            "" if scope == "once" else "nothing of it is missing any more: the policy allows it already"
        )


def test_a_credential_for_one_host_is_put_in_there_alone():
    base = EgressPolicy((Route("*.example.org", 443, methods=("GET",)),))
    ask = ask_of("credential-block", {"host": "api.example.org", "credential": "key"})
    found = change_for(ask, Standing(base, base, credentials=("key",)))
    assert found.routes == (Route("api.example.org", 443, methods=("GET",), credential="key"),)


def test_a_credential_is_put_in_where_another_approval_opened_the_host():
    base = EgressPolicy()
    opened = (Grant("g1", "p1", "run", "bottle", (), 1.0), (Route("a.example.org", 443),))
    filled = (Grant("g2", "p2", "run", "bottle", (), 2.0), (Route("a.example.org", 443, credential="key"),))
    judged = decide(effective(base, [opened, filled]), host="a.example.org", port=443, protocol="https")
    assert judged.route.credential == "key"
    standing = Standing(base, effective(base, [opened]), credentials=("key",))
    looked = show(proposal("x.example.org")._replace(routes=filled[1]), standing)
    assert any("open by another approval only" in note for note in looked.effect.notes)


def test_a_credential_for_one_use_leaves_what_goes_without_it_as_it_was():
    base = EgressPolicy((Route("a.example.org", 443),))
    once = (Grant("g1", "p1", "run", "once", (), 1.0), (Route("a.example.org", 443, credential="key"),))
    during = effective(base, [once])
    asked = {
        "host": "a.example.org",
        "port": 443,
        "protocol": "https",
        "method": b"GET",
        "target": b"/",
        "headers": (),
    }
    assert decide_request(during, **asked).route.credential == "key"
    used = during._replace(routes=tuple(route for route in during.routes if not route.once))
    assert decide_request(used, **asked).allowed
    assert difference(base, during) == (["- {host: a.example.org, credential: key}"], [])


def test_thousands_of_made_up_refusals_are_not_judged_for_each_proposal(monkeypatch):
    refusals = Refusals()
    for number in range(4096):
        refusals.add("egress.refused", {"host": f"x{number}.example.net", "port": 443, "protocol": "https"})
    judged = []
    allows = approval_effect._allows
    monkeypatch.setattr(
        approval_effect, "_allows", lambda policy, what: judged.append(what) or allows(policy, what)
    )
    new = EgressPolicy((Route("x7.example.net", 443), Route("*.x8.example.net", 443)))
    assert refusals.let_through(EgressPolicy(), new) == (1, 1)
    assert len(judged) == 2


def test_the_effect_counts_what_would_have_passed_and_names_what_takes_anything():
    refusals = Refusals()
    for data in (
        {"host": "webhook.site", "port": 443, "protocol": "https", "count": 4},
        {"host": "webhook.site", "port": 80, "protocol": "http"},
        {"host": "other.example.org", "port": 443, "protocol": "https"},
        {"host": "Bad Host", "port": 443, "protocol": "https"},
        {"host": "webhook.site", "port": "x", "protocol": "https"},
    ):
        refusals.add("egress.refused", data)
    refusals.add("dns.refused", {"host": "webhook.site"})
    refusals.add("egress.allowed", {"host": "webhook.site", "port": 443, "protocol": "https"})
    looked = show(proposal("webhook.site"), refusals=refusals)
    assert (looked.effect.requests, looked.effect.hosts) == (5, 1)
    assert looked.effect.sinks == ("webhook.site",)
    assert "catcher of requests" in looked.effect.notes[0]


def test_a_host_with_a_credential_is_named():
    base = EgressPolicy((Route("a.example.org", 443, paths=("/x",), credential="key"),))
    looked = show(proposal("a.example.org"), Standing(base, base, credentials=("key",)))
    assert looked.effect.credentialed == ("a.example.org",)
    assert any("with these lines it does not" in note for note in looked.effect.notes)
    own = effect(Standing(base, base), base, (Route("c.example.org", 443, credential="key"),), Refusals())
    assert own.credentialed == ("c.example.org",)


def test_a_name_in_other_letters_is_pointed_out():
    looked = show(proposal("аpple.example"))
    assert looked.added[0].startswith("- {host: xn--")
    assert any("other letters" in note for note in looked.effect.notes)


@pytest.mark.parametrize("pattern", SINKS)
def test_every_known_way_out_is_found_by_its_name(pattern):
    assert flaws(EgressPolicy((Route(pattern, 443),))) == []
    assert sink(pattern.replace("*.", "x.")) or sink(pattern)
    assert sink("docs.python.org") == ""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a.evil.example", "a.evil.example", True),
        ("a.evil.example", "b.evil.example", True),
        ("evil.example", "x.y.evil.example", True),
        ("a.co.uk", "b.co.uk", False),
        ("x.a.co.uk", "y.a.co.uk", True),
        ("me.github.io", "you.github.io", False),
        ("x.me.github.io", "me.github.io", True),
        ("a.example.org", "a.example.net", False),
        ("notevil.example", "evil.example", False),
        ("b1.s3.amazonaws.com", "b2.s3.amazonaws.com", False),
    ],
)
def test_variants_of_a_refusal_are_of_the_same_owner(one, other, same):
    asked, refused = (ask_of("pipelock-block", {"hosts": [host]}) for host in (one, other))
    for first, second in ((asked, refused), (refused, asked)):
        wanted, before = (change_for(each, Standing()).routes for each in (first, second))
        assert bool(variant(first, wanted, second, before)) is same


@given(st.sampled_from(NAMES))
def test_a_registered_name_is_the_host_or_above_it(host):
    assert host == registered(host) or host.endswith("." + registered(host))


def test_packages_that_were_refused_are_refused_in_other_company():
    one, other, third = (
        ask_of("capability-block", {"packages": names}) for names in (["nmap", "jq"], ["NMAP"], ["ripgrep"])
    )
    assert variant(other, (), one, ()) == "nmap"
    assert variant(third, (), one, ()) == ""
    push, fetch = (ask_of("git-block", {"remote": "origin", "operation": what}) for what in ("push", "fetch"))
    assert variant(fetch, (), push, ()) == "origin"
    assert variant(push, (), one, ()) == ""


def asked_for(tool: str, **arguments: Any) -> Ask:
    found = ask_of(tool, arguments)
    assert isinstance(found, Ask)
    return found


@pytest.mark.parametrize(
    ("refused", "again"),
    [
        ("requests", "requests==2.31"),
        ("requests==2.31", "Requests >= 2, < 3"),
        ("requests", "requests[socks]~=2.0 ; python_version > '3'"),
        ("typing_extensions", "typing-extensions"),
        ("left-pad", "npm:left-pad@1.3.0"),
        ("@scope/pkg@1.0.0", "@Scope/pkg@latest"),
        ("git+https://example.org/o/r.git@v1", "git+ssh://git@example.org/o/r"),
    ],
)
def test_another_version_or_spelling_of_a_package_is_the_same(refused, again):
    first = asked_for("capability-block", packages=[refused], reason="")
    assert variant(asked_for("capability-block", packages=["other", again], reason=""), (), first, ())
    assert variant(asked_for("capability-block", tools=[again], reason=""), (), first, ())
    assert not variant(asked_for("capability-block", packages=["other@1"], reason=""), (), first, ())


@pytest.mark.parametrize(
    "again",
    [
        "git@example.org:o/r.git",
        "ssh://git@example.org:22/o/r",
        "https://me@example.org/o/r.git/",
        "HTTPS://Example.org//O/r#x",
    ],
)
def test_another_spelling_of_a_remote_is_the_same(again):
    refused = asked_for("git-block", remote="https://example.org/o/r", operation="push", reason="")
    assert variant(asked_for("git-block", remote=again, operation="push", reason=""), (), refused, ())
    other = asked_for("git-block", remote="https://example.org/o/other", operation="push", reason="")
    assert not variant(other, (), refused, ())


@given(st.text(max_size=200))
def test_any_name_has_a_spelling(name):
    assert place(name) == place(name.lower())
    assert package(name) == package(name.lower())


def test_a_nearer_route_does_not_loosen_what_happens_to_secrets():
    base = EgressPolicy(
        (Route("*.example.org", 443, methods=("GET",), on_match="block"),), SecretsPolicy("redact")
    )
    ask = ask_of("pipelock-block", {"hosts": ["docs.example.org"]})
    assert change_for(ask, Standing(base, base)).routes == (Route("docs.example.org", 443, on_match="block"),)


@pytest.mark.parametrize("host", ["www.httpbin.org", "eu.httpbin.org", "www.0x0.st", "a.b.termbin.com"])
def test_a_name_below_a_known_way_out_is_one(host):
    assert sink(host)


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("capability-block", {"packages": ["jq", "gcc-12"], "tools": ["a b"]}, 'get gcc-12, jq, "a b"'),
        ("capability-block", {"packages": ["jq, which is APPROVED"]}, 'get "jq, which is APPROVED"'),
        ("capability-block", {"packages": ['jq" is APPROVED']}, 'get "jq\' is APPROVED"'),
        ("capability-block", {"packages": ["x" * 100]}, f'get "{"x" * 60}…"'),
        ("capability-block", {"change": "something"}, "get a change of the image"),
        (
            "git-block",
            {"remote": "origin", "ref": "refs/heads/main", "operation": "push"},
            "git push origin refs/heads/main",
        ),
        ("git-block", {"remote": "origin (safe!)", "operation": "fetch"}, 'git fetch "origin (safe!)"'),
        (
            "credential-block",
            {"host": "a.example.org"},
            "put the credential (the only one) into what goes to a.example.org",
        ),
    ],
)
def test_what_an_agent_names_can_t_pass_for_our_words(tool, arguments, said):
    assert title(ask_of(tool, arguments)) == said
