"""Planning: pure, total, and refusing by name what can't be kept."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.errors import PlanError
from bot_bottle.plan import check, render
from bot_bottle.plan.facts import HostFacts, HostProxies
from bot_bottle.plan.model import Command
from bot_bottle.plan.resolve import FIRST_UNUSED_UID, UNUSED_UIDS, Choices, resolve
from support.manifests import credential, egress, image, manifest, remote, resources, route

FACTS = HostFacts(
    uid=1000, gid=1000, workspace="/home/me/repo", state_root="/home/me/.local/state/bot-bottle",
    runtime_root="/run/user/1000/bot-bottle", data_root="/home/me/.local/share/bot-bottle",
)  # fmt: skip
CHOICES = Choices(id="fixer-2345", tty=False, workspace=None, command=Command(argv=("true",), env=()))


def plan(document=None, facts=FACTS, **choices):
    return resolve(document or manifest(), facts, CHOICES._replace(**choices))


def problems(document, facts=FACTS):
    return check.mismatches(document, plan(document, facts), facts)


def test_headless_works_on_a_copy_and_a_terminal_on_the_repository_itself():
    assert plan().workspace.mode == "copy"
    assert plan(tty=True).workspace.mode == "mount"
    assert plan(manifest(bottle={"workspace": "mount"})).workspace.mode == "mount"
    assert plan(manifest(bottle={"workspace": "mount"}), workspace="copy").workspace.mode == "copy"


@given(st.text(alphabet="23456789abcdefgh-", min_size=1, max_size=20))
def test_root_never_lends_its_own_id_nor_one_that_anybody_has(run):
    made = plan(facts=FACTS._replace(uid=0, gid=0), id=run)
    assert FIRST_UNUSED_UID <= made.uid < FIRST_UNUSED_UID + UNUSED_UIDS < 2**31
    assert made.gid == made.uid


def test_an_empty_list_of_routes_allows_nothing():
    assert plan().egress.routes == ()
    assert "nothing" in render.text(plan())


def test_the_plan_says_what_may_be_reached_and_prints_no_secret(monkeypatch):
    monkeypatch.setenv("KEY", "sk-secret")
    upstream = {"host": "api.example.org", "port": 443, "tls": True}
    document = manifest(
        bottle={
            "egress": egress(
                route("api.example.org", port=80, protocol="http", upstream=upstream, credential="model")
            ),
            "credentials": {"model": credential("env:KEY")},
        }
    )  # fmt: skip
    assert problems(document) == ()
    shown = render.text(plan(document)) + json.dumps(render.document(plan(document)))
    assert "http://api.example.org:80 → https://api.example.org:443 with credential model" in shown
    assert "env:KEY" in shown
    assert "sk-secret" not in shown


def test_an_observing_bottle_says_that_it_is_open():
    observing = manifest(bottle={"egress": egress(mode="observe")})
    assert problems(observing) == ()
    assert any("THIS BOTTLE IS OPEN" in note for note in check.notes(observing))
    assert check.notes(manifest()) == ()
    assert plan(observing).egress.mode == "observe"
    shown = render.text(plan(observing))
    assert "every other public host" in shown
    assert "nothing: no route" not in shown


@pytest.mark.parametrize(
    ("bottle", "name"),
    [
        ({"backend": "docker", "image": image(reference="/srv/rootfs")}, "image.reference"),
        ({"image": image(dockerfile="/home/me/.bot-bottle/bottles/Dockerfile")}, "image"),
        ({"runtime": "runsc"}, "runtime"),
        ({"resources": resources(disk=1 << 30)}, "resources.disk"),
        ({"egress": egress(route("a.example.org", protocol="tcp", port=53))}, "port 53"),
        ({"egress": egress(route("a.example.org", protocol="tcp", port=3128))}, "port 3128"),
        (
            {
                "egress": egress(
                    *(route("a.example.org", protocol="tcp", port=port) for port in range(5000, 5033))
                )
            },
            "5032",
        ),
        ({"egress": egress(route("a.example.org", credential="c", protocol="http", port=80))}, "credential"),
        (
            {"git": {"user_name": None, "user_email": None, "signing": None, "remotes": [remote(key=None)]}},
            "git.remotes: origin: ssh needs `key:`",
        ),
        (
            {
                "git": {
                    "user_name": None,
                    "user_email": None,
                    "signing": None,
                    "remotes": [remote(known_host=None)],
                }
            },
            "ssh needs `known_host:`",
        ),
        (
            {
                "git": {
                    "user_name": None,
                    "user_email": None,
                    "signing": None,
                    "remotes": [remote("/srv/x.git", key=None, known_host=None)],
                }
            },
            "local: true",
        ),
        (
            {
                "git": {
                    "user_name": None,
                    "user_email": None,
                    "signing": None,
                    "remotes": [remote("http://a.example.org/x", key=None, known_host=None)],
                }
            },
            "http://",
        ),
        (
            {
                "git": {
                    "user_name": None,
                    "user_email": None,
                    "signing": None,
                    "remotes": [
                        remote(),
                        remote("https://example.org/me/repo", name="again", key=None, known_host=None),
                    ],
                }
            },
            "could not tell it from origin",
        ),
        ({"resources": resources(memory=1)}, "resources.memory"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused_by_name(bottle, name):
    found = problems(manifest(bottle=bottle))
    assert len(found) == 1
    assert name in found[0]


@pytest.mark.parametrize("kind", [{"protocol": "http", "port": 80}, {}])
@pytest.mark.parametrize("rule", [{"methods": ["GET"]}, {"paths": ["/x/**"]}, {"headers": {"a": "b*"}}])
def test_the_rules_of_a_route_are_in_the_policy(rule, kind):
    made = plan(manifest(bottle={"egress": egress(route("a.example.org", **kind, **rule))}))
    document = made.egress.routes[0].document()
    assert {key: document[key] for key in ("methods", "paths", "headers") if document[key]} == {
        key: [list(item) for item in value.items()] if key == "headers" else value
        for key, value in rule.items()
    }


UPSTREAM = {"host": "127.0.0.1", "port": 5432, "tls": False}


@pytest.mark.parametrize(
    ("keys", "routes", "said"),
    [
        ({}, [route("a.example.org"), route("a.example.org", port=80, protocol="http")], ""),
        ({}, [route("db.example.org", port=5432, protocol="tcp", upstream=UPSTREAM)], ""),
        ({}, [route("db.example.org", port=5432, protocol="tcp")], "db.example.org:5432: pipelock carries HTTP and TLS only"),
        ({"mode": "observe"}, [], "egress.mode: pipelock refuses what observe would let through"),
        (
            {"upstream": {"ca": None, "proxy": "http://proxy.example.org:3128", "credential": None}},
            [],
            "pipelock dials by itself, past the proxy of egress.upstream.proxy",
        ),
    ],
    ids=["http and https", "tcp with an upstream", "tcp", "observe", "a proxy"],
)  # fmt: skip
def test_what_pipelock_cannot_keep_is_refused_by_name_and_nothing_else(keys, routes, said):
    asked = {"egress": egress(*routes, engine="pipelock", **keys)}
    ours = set(problems(manifest(bottle=asked)))
    without = set(problems(manifest(bottle={"egress": {**asked["egress"], "engine": "builtin"}})))
    [*refused] = ours - without
    assert len(refused) == bool(said)
    assert all(said in sentence for sentence in refused)


def test_the_plan_says_what_narrows_a_route():
    narrow = route(
        "a.example.org",
        protocol="http",
        port=80,
        methods=["GET", "HEAD"],
        paths=["/x/**", "/y"],
        headers={"a": "b*"},
    )
    shown = render.text(
        plan(manifest(bottle={"egress": egress(narrow, route("db.example.org", protocol="tcp", port=5432))}))
    )
    assert "http://a.example.org:80 (only GET, HEAD; only /x/** or /y; only with a: b*)" in shown
    assert "tcp://db.example.org:5432\n" in shown


def test_the_plan_says_what_is_searched_for_secrets_and_what_is_not():
    open_route = route("b.example.org", scan=False)
    rules = {"on_match": "redact", "oversize": "pass", "limit": 512 * 1024}
    made = plan(manifest(bottle={"egress": egress(route("a.example.org"), open_route, secrets=rules)}))
    shown = render.text(made)
    assert "a request with one in it goes on with stars in the secret's place (on_match: redact)" in shown
    assert "bodies above 512 KiB are passed on unsearched (oversize: pass)" in shown
    assert [one for one in render.reach(made) if "not searched" in one] == [
        "https://b.example.org:443, not searched for secrets"
    ]
    assert render.searched(plan()) == []


API = ("api.example.org", 443, "https")


def test_from_what_goes_to_the_model_a_secret_is_taken_out_where_nothing_else_is_said():
    routes = [
        route("api.example.org", credential="key"),
        route("api.example.org", credential="key", paths=["/x"], on_match="block"),
        route("api.example.org"),
        route("*.example.org", credential="key"),
        route("api.example.org", port=8443, credential="key"),
        route("git.example.org", credential="key"),
    ]
    for stated in ("block", "hold"):
        rules = {"on_match": stated, "oversize": "block", "limit": 1024}
        document = manifest(bottle={"egress": egress(*routes, secrets=rules)})
        made = plan(document, model=(API,))
        assert [one.on_match for one in made.egress.routes] == ["redact", "block", None, None, None, None]
        assert (
            "api.example.org:443 with credential key, put in outside the bottle, a request with a secret in it goes on"
            in (render.text(made))
        )
        assert {one.on_match for one in plan(document).egress.routes} == {None, "block"}
    unsearched = plan(manifest(bottle={"egress": egress(*routes)}), model=(API,))
    assert {one.on_match for one in unsearched.egress.routes} == {None, "block"}


def test_what_is_asked_for_needs_somebody_to_ask():
    asked = {"egress": egress(ask=["a.example.org", "*.b.example.org"])}
    [said] = problems(manifest(bottle=asked))
    assert said.startswith("egress.ask: nobody is asked in a bottle without `supervise: true`")
    document = manifest(bottle={**asked, "supervise": True})
    assert problems(document) == ()
    made = plan(document)
    assert made.egress.ask == ("a.example.org", "*.b.example.org")
    assert made.supervise is not None
    assert made.trust is not None
    assert "*.b.example.org: what no route allows waits for you, and is refused without you" in render.text(
        made
    )
    assert "nothing: no route is allowed" not in render.text(made)
    watched = manifest(bottle={"egress": egress(ask=["a.example.org"], mode="observe"), "supervise": True})
    assert any("nothing waits in a bottle that is only watched" in note for note in check.notes(watched))


def test_pipelock_is_not_dialled_past_the_proxy_that_the_hosts_variables_name():
    behind = FACTS._replace(proxies=HostProxies(https=("http://proxy.example.org:3128", "HTTPS_PROXY")))
    document = manifest(bottle={"egress": egress(route("a.example.org"), engine="pipelock")})
    assert any("past the proxy of HTTPS_PROXY" in said for said in problems(document, behind))


def test_the_plan_says_that_a_second_engine_has_to_agree():
    assert "pipelock" in render.text(plan(manifest(bottle={"egress": egress(engine="pipelock")})))
    assert "pipelock" not in render.text(plan())


def test_all_mismatches_are_said_at_once():
    document = manifest(bottle={"runtime": "runsc", "resources": resources(cpus=2.0, memory=5)})
    with pytest.raises(PlanError) as raised:
        check.refuse(problems(document), "Bottle default")
    assert len(raised.value.details.splitlines()) == 3


def test_limits_that_were_not_asked_for_are_not_refused():
    assert problems(manifest()) == ()
    assert plan().limits.stated == ()
    assert plan(manifest(bottle={"resources": resources(pids=64)})).limits.stated == ("pids",)


LOGIN = json.dumps(
    {"file": "/home/me/.claude/.credentials.json", "token_url": "https://a.org/t", "client_id": "b"}
)


def test_the_plan_names_each_secret_by_where_it_is_read_and_how_it_goes_out():
    named = {
        "basic": credential("env:A", scheme="basic", name="authorization", user="me"),
        "pair": credential("file:/k", scheme="basic", name="authorization"),
        "query": credential("keyring:a/b", scheme="query", name="key", variable="KEY"),
        "login": credential("oauth:" + LOGIN, name="authorization", prefix="Bearer "),
        "command": credential('command:["op", "read", "op://a/b"]'),
        "unused": credential("env:UNUSED"),
    }
    routes = [route(f"{name}.example.org", credential=name) for name in named if name != "unused"]
    bottle = {"egress": egress(*routes), "credentials": named, "sensitive": {"other": "env:OTHER"}}
    made = plan(manifest(bottle=bottle), placeholders={"query": "placeholder-query-1"})
    assert render.secrets(made) == [
        "basic from env:A, sent as the password of me",
        "command from the output of op read op://a/b, sent as x-api-key",
        "login from the login in /home/me/.claude/.credentials.json (renewed outside, at https://a.org/t),"
        " sent as authorization (Bearer)",
        "pair from file:/k, sent as USER:PASSWORD",
        "query from keyring:a/b, sent as the URL's parameter key; inside, KEY holds a placeholder",
        "other from env:OTHER, must not leave by any way",
    ]
    assert [item.placeholder for item in made.credentials if item.placeholder] == ["placeholder-query-1"]


@pytest.mark.parametrize(
    "source", ["file:/home/me/repo/.env", "oauth:" + LOGIN.replace("/home/me", "/home/me/repo")]
)
def test_a_secret_that_lies_in_the_workspace_is_refused(source):
    bottle = {"egress": egress(route("a.org", credential="c")), "credentials": {"c": credential(source)}}
    assert any(
        "lies in the workspace, which the agent sees" in one for one in problems(manifest(bottle=bottle))
    )
    assert any(
        "lies in the workspace" in one for one in problems(manifest(bottle={"sensitive": {"s": source}}))
    )


def test_a_sensitive_value_that_nothing_looks_for_is_refused():
    assert any("sensitive" in one for one in problems(manifest(bottle={"sensitive": {"s": "env:A"}})))


def test_the_plan_of_a_container_says_what_it_is_made_from_and_that_it_sees_nothing_of_the_host():
    asked = image(
        dockerfile="/home/me/.bot-bottle/bottles/Dockerfile", context="/home/me/.bot-bottle/bottles/image"
    )
    shown = render.text(plan(manifest(bottle={"backend": "docker", "image": asked, "runtime": "runsc"})))
    assert (
        "/home/me/.bot-bottle/bottles/Dockerfile, with what is in /home/me/.bot-bottle/bottles/image" in shown
    )
    assert "run by runsc" in shown
    assert "/usr" not in shown
    assert "bot-bottle's own image" in render.text(plan(manifest(bottle={"backend": "docker"})))
    assert "image debian:12" in render.text(
        plan(manifest(bottle={"backend": "docker", "image": image(reference="debian:12")}))
    )


@pytest.mark.parametrize(
    ("stated", "key"),
    [
        ({"dockerfile": "/home/me/repo/Dockerfile", "context": "/home/me/repo"}, "image.dockerfile"),
        ({"dockerfile": "/home/me/x/Dockerfile", "context": "/home/me"}, "image.context"),
        ({"ca": "/home/me/repo/ca.pem"}, "image.ca"),
    ],
)
def test_nothing_that_the_agent_writes_says_what_is_built(stated, key):
    found = problems(manifest(bottle={"backend": "docker", "image": image(**stated)}))
    assert any(line.startswith(key) and "workspace" in line for line in found)
    beside = {name: path.replace("/home/me", "/home/me/.bot-bottle/bottles") for name, path in stated.items()}
    assert problems(manifest(bottle={"backend": "docker", "image": image(**beside)})) == ()
