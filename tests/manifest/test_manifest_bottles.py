"""What bottle files mean: routes, credentials, resources, and how they build on each other."""

import pytest

GIB = 2**30
AUTH = "authorization"


def route_of(home, text: str):
    home.bottle(
        "one", f"egress:\n  routes:\n    - {text}\ncredentials: {{key: {{from: {{env: K}}, header: X-Key}}}}"
    )
    return home.composed("one")["egress"]["routes"][0]


def refused_route(home, text: str) -> str:
    home.bottle(
        "one", f"egress:\n  routes:\n    - {text}\ncredentials: {{key: {{from: {{env: K}}, header: X-Key}}}}"
    )
    return home.refusal("one")


def test_a_bottle_that_says_nothing_allows_nothing(home) -> None:
    home.bottle("empty")
    assert home.composed("empty") == {
        "name": "empty",
        "file": str(home.root / "bottles" / "empty.md"),
        "backend": "namespace",
        "image": None,
        "runtime": None,
        "bundle": None,
        "workspace": None,
        "resources": {"cpus": None, "memory": None, "pids": None, "disk": None},
        "egress": {
            "engine": "builtin",
            "mode": "enforce",
            "routes": [],
            "ask": [],
            "secrets": None,
            "upstream": {"ca": None, "proxy": None, "credential": None},
        },
        "credentials": {},
        "sensitive": {},
        "git": {"user_name": None, "user_email": None, "signing": None, "remotes": []},
        "env": {},
        "supervise": False,
    }


def test_hosts_to_ask_for_are_those_of_all_parts_in_one_spelling(home) -> None:
    home.bottle("base", "egress: {ask: [Example.ORG, '*.b.example']}")
    home.bottle("more", "extends: [base]\negress: {ask: [example.org, c.example.]}")
    assert home.composed("more")["egress"]["ask"] == ["example.org", "*.b.example", "c.example"]


@pytest.mark.parametrize("pattern", ["'*'", "127.0.0.1", "localhost", "'a.*'", "https://a.example", "''"])
def test_a_host_to_ask_for_is_a_name(home, pattern: str) -> None:
    home.bottle("odd", f"egress: {{ask: [{pattern}]}}")
    assert "egress.ask[0]" in home.refusal("odd")


def test_an_empty_list_of_routes_allows_nothing(home) -> None:
    home.bottle("none", "egress: {routes: []}")
    assert home.composed("none")["egress"]["routes"] == []


@pytest.mark.parametrize(
    ("text", "port", "protocol"),
    [
        ("{host: a.org}", 443, "https"),
        ("{host: a.org, protocol: http}", 80, "http"),
        ("{host: a.org, protocol: http, port: 8080}", 8080, "http"),
        ("{host: a.org, protocol: tcp, port: 5432}", 5432, "tcp"),
    ],
)
def test_a_route_gets_the_port_of_its_protocol(home, text: str, port: int, protocol: str) -> None:
    route = route_of(home, text)
    assert (route["port"], route["protocol"]) == (port, protocol)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{host: a.org, port: 0}", "port: must be 1 or more"),
        ("{host: a.org, port: 65536}", "port: must be 65535 or less"),
        ("{host: a.org, port: true}", "port: must be a whole number"),
        ("{host: a.org, port: '443'}", "port: must be a whole number"),
        ("{host: a.org, protocol: tcp}", "needs its `port:`"),
        ("{host: a.org, protocol: tcp, port: 1, methods: [GET]}", "methods: says something about HTTP"),
        ("{host: a.org, protocol: tcp, port: 1, paths: [/x]}", "paths: says something about HTTP"),
        ("{host: a.org, protocol: tcp, port: 1, credential: key}", "credential: can't be put into"),
        ("{host: a.org, protocol: tcp, port: 1, upstream: 'https://a.org'}", "upstream: must be `HOST:PORT`"),
        ("{host: a.org, protocol: http, credential: key}", "cross the network in clear text"),
        ("{host: a.org, protocol: htps}", "did you mean `https`?"),
        ("{host: a.org, methods: []}", "methods: must not be empty"),
        ("{host: a.org, paths: []}", "paths: must not be empty"),
        ("{host: a.org, methods: [get]}", "methods[0]: `get` is no HTTP method"),
        ("{host: a.org, paths: [x]}", "paths[0]: `x` is no path"),
        ("{host: a.org, paths: [/a/../b]}", "paths[0]: `/a/../b` has `.` or `..`"),
        (
            "{host: a.org, credential: other}",
            "names credential `other`, which is not in `credentials:` (known: key)",
        ),
        ("{host: a.org, upstream: b.org}", "upstream: `b.org` has no port"),
        ("{port: 443}", "host: is missing"),
        ("{host: 5}", "host: must be text, and this reads as a number; put it in quotes"),
        ("a.org", "must be a map"),
    ],
)
def test_a_route_that_can_not_hold_is_refused(home, text: str, said: str) -> None:
    refused = refused_route(home, text)
    assert said in refused
    assert "one.md:4: " in refused


def test_one_host_and_port_has_one_protocol_and_one_upstream(home) -> None:
    two = (
        "{host: a.org, upstream: '127.0.0.1:1', methods: [GET]}\n    - {host: a.org, upstream: '127.0.0.1:2'}"
    )
    assert "one.md:5: route to a.org:443 contradicts one.md:4" in refused_route(home, two)
    two = "{host: a.org}\n    - {host: a.org, protocol: http, port: 443}"
    assert "one.md:5: route to a.org:443 contradicts one.md:4" in refused_route(home, two)


def test_the_same_route_twice_in_one_file_must_agree(home) -> None:
    assert "is on line 4 already" in refused_route(
        home, "{host: a.org}\n    - {host: A.org., credential: key}"
    )
    assert route_of(home, "{host: a.org}\n    - {host: A.ORG}")["host"] == "a.org"
    assert len(home.composed("one")["egress"]["routes"]) == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 * GIB), ("512 MiB", 2**29), ("1.5GiB", 3 * 2**29), ("2GB", 2 * 10**9), (str(GIB), GIB)],
)
def test_memory_is_bytes(home, text: str, size: int) -> None:
    home.bottle("one", f"resources: {{memory: {text}}}")
    assert home.composed("one")["resources"]["memory"] == size


@pytest.mark.parametrize(
    "text", ["4", "0", "-1", "4G", "4gib", "lots", "1e9GiB", "true", "4.5", "[4GiB]", "99999999TiB"]
)
def test_memory_that_is_no_amount_is_refused(home, text: str) -> None:
    home.bottle("one", f"resources: {{memory: {text}}}")
    assert "one.md:2: resources.memory: " in home.refusal("one")


CLAUDE = (
    'oauth:{"file": "/c/.credentials.json", "token_url": "https://platform.claude.com/v1/oauth/token",'
    ' "client_id": "9d1c250a-e61b-44d9-88ed-5944d1962f5e"}'
)
OTHER = 'oauth:{"file": "/c/login", "token_url": "https://login.example.org/token", "client_id": "bot"}'


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("{from: {env: A_KEY}, header: X-Api-Key}", ("env:A_KEY", "header", "x-api-key", "", "", None)),
        ("{from: {env: A_KEY}, bearer: true}", ("env:A_KEY", "header", AUTH, "Bearer ", "", None)),
        ("{from: {file: /run/k}, header: Authorization, prefix: 'key '}", ("file:/run/k", "header", AUTH, "key ", "", None)),
        ("{from: {command: [pass, 'a b']}, bearer: true}", ('command:["pass", "a b"]', "header", AUTH, "Bearer ", "", None)),
        ("{from: {keyring: service/user}, basic: me}", ("keyring:service/user", "basic", AUTH, "", "me", None)),
        ("{from: {env: PAIR}, basic: true, env: LOGIN}", ("env:PAIR", "basic", AUTH, "", "", "LOGIN")),
        ("{from: {env: K}, query: api_key, env: KEY}", ("env:K", "query", "api_key", "", "", "KEY")),
        ("{from: {claude_login: /c/.credentials.json}, bearer: true}", (CLAUDE, "header", AUTH, "Bearer ", "", None)),
        ("{from: {oauth: {file: /c/login, token_url: 'https://login.example.org/token', client_id: bot}}, bearer: true}",
         (OTHER, "header", AUTH, "Bearer ", "", None)),
    ],
)  # fmt: skip
def test_a_credential_is_a_reference_and_a_way_out(home, text: str, meant: tuple[str, ...]) -> None:
    home.bottle("one", f"credentials: {{key: {text}}}")
    credential = home.composed("one")["credentials"]["key"]
    keys = ("source", "scheme", "name", "prefix", "user", "variable")
    assert tuple(credential[key] for key in keys) == meant


OAUTH = "file: /x, token_url: 'https://a.org/t', client_id: b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{header: x}", "from: is missing"),
        ("{from: {}, header: x}", "from: must have exactly one of"),
        ("{from: {env: A, file: /x}, header: x}", "exactly one of"),
        ("{from: {env: A}}", "or `header` is missing"),
        ("{from: {env: A}, header: x, bearer: true}", "exclude each other"),
        ("{from: {env: A}, bearer: true, basic: me}", "`bearer` and `basic` exclude each other"),
        ("{from: {env: A}, header: x, query: key}", "`header` and `query` exclude each other"),
        ("{from: {env: A}, bearer: false}", "must be `true`"),
        ("{from: {env: A}, basic: false}", "must be a user's name, or `true`"),
        ("{from: {env: A}, basic: 'me:secret'}", "key.basic: must be a user's name in plain ASCII, without a colon"),
        ("sk-secret", "the secret itself does not stand in this file"),
        ("{from: sk-secret, bearer: true}", "the secret itself does not stand in this file"),
        ("{from: {env: A}, query: 'a b'}", "is no name of a URL's parameter"),
        ("{from: {env: A}, bearer: true, prefix: x}", "needs `header:`"),
        ("{from: {env: A}, bearer: true, env: 1A}", "is no name of an environment variable"),
        ("{from: {env: A}, bearer: true, env: PATH}", "PATH is a variable that programs need to run"),
        ("{from: {env: A}, bearer: true, env: https_proxy}", "https_proxy is a variable that programs need"),
        ("{from: {env: A}, bearer: true, env: LD_PRELOAD}", "LD_PRELOAD is a variable that programs need"),
        ("{from: {env: A}, header: Host}", "belongs to the connection"),
        ("{from: {env: A}, header: Proxy-Authorization}", "belongs to the connection"),
        ("{from: {env: A}, header: 'a: b'}", "is no name of an HTTP header"),
        ('{from: {env: A}, header: x, prefix: "a\\r\\nb: c"}', "invisible character"),
        ("{from: {file: key}, header: x}", "absolute path"),
        ("{from: {command: pass}, header: x}", "must be a list"),
        ("{from: {command: []}, header: x}", "must not be empty"),
        ("{from: {keyring: x}, header: x}", "SERVICE/USER"),
        ("{from: {evn: A}, header: x}", "did you mean `env`?"),
        ("{from: {claude_login: /x}, header: x}", "`claude_login` goes out with `bearer: true`"),
        ("{from: {oauth: {file: /x}}, bearer: true}", "token_url: is missing"),
        ("{from: {oauth: {" + OAUTH.replace("https", "http") + "}}, bearer: true}", "must be an https URL"),
        ("{from: {oauth: {" + OAUTH.replace("a.org", "me:pw@a.org") + "}}, bearer: true}", "must be an https URL"),
    ],
)  # fmt: skip
def test_a_credential_that_can_not_hold_is_refused(home, text: str, said: str) -> None:
    home.bottle("one", f"credentials:\n  key: {text}")
    refused = home.refusal("one")
    assert said in refused
    assert "one.md:3: " in refused


def test_what_is_said_of_a_credential_never_repeats_its_value(home) -> None:
    secret = "hunter2-hunter2"
    home.bottle(
        "one",
        f"credentials:\n  a: {{from: {{env: {secret}}}, header: '{secret}:'}}\n"
        f"  b: {{from: {{file: {secret}}}, query: '{secret}?'}}\n"
        f"  c: {{from: {{keyring: {secret}}}, basic: '{secret}:'}}\n"
        f"sensitive:\n  d: {{env: {secret}}}\n  e: {secret}\n",
    )
    refused = home.refusal("one")
    assert secret not in refused
    assert refused.count("one.md:") >= 7


def test_what_is_sensitive_is_a_reference_as_well(home) -> None:
    home.bottle("base", "sensitive: {database: {env: DATABASE_URL}, other: {file: /x}}")
    home.bottle("one", "extends: base\nsensitive: {other: {command: [op, read, 'op://a/b']}}")
    assert home.composed("one")["sensitive"] == {
        "database": "env:DATABASE_URL",
        "other": 'command:["op", "read", "op://a/b"]',
    }
    home.bottle(
        "two", "sensitive:\n  database: {env: A, file: /x}\n  login: {claude_login: /x}\n  plain: text"
    )
    refused = home.refusal("two")
    assert (
        "two.md:3: sensitive.database: must have exactly one of `env`, `file`, `command`, `keyring`"
        in refused
    )
    assert "two.md:4: unknown key `claude_login`" in refused
    assert "two.md:5: sensitive.plain: must say where the secret is read" in refused


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c id",
        "-oProxyCommand=id",
        "file:///etc",
        "/srv/../etc",
        "https://u:p@a.org/x",
        "ssh://-x/y",
        "git@a.org:-x",
    ],
)
def test_a_remote_that_is_more_than_a_place_is_refused(home, url: str) -> None:
    home.bottle("one", f"git: {{remotes: [{{name: origin, url: '{url}'}}]}}")
    assert "git.remotes[0].url: must be" in home.refusal("one")


def test_the_design_example_is_right(home, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    home.bottle(
        "full",
        """
        backend: docker
        image: ./Dockerfile
        resources: {cpus: 2, memory: 4GiB, pids: 512}
        egress:
          engine: builtin
          routes:
            - host: api.anthropic.com
              credential: anthropic
            - {host: db.example.org, port: 5432, protocol: tcp}
            - {host: docs.python.org, methods: [GET, HEAD], paths: ["/3/**"]}
          secrets: {on_match: hold}
        credentials:
          anthropic: {from: {env: ANTHROPIC_API_KEY}, header: x-api-key}
        git:
          user: {name: Bot, email: bot@example.org}
          remotes:
            - name: origin
              url: ssh://git@example.org/me/repo.git
              key: ~/.ssh/bot
              known_host: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJjXmQ0Wb0f2rQ0X8d1wq1d7mXo2H0x2v0y3a1b2c3d4
        supervise: true
        """,
    )
    made = home.composed("full")
    assert made["image"]["dockerfile"] == str(home.root / "bottles" / "Dockerfile")
    assert made["resources"] == {"cpus": 2.0, "memory": 4 * GIB, "pids": 512, "disk": None}
    assert [route["host"] for route in made["egress"]["routes"]] == [
        "api.anthropic.com",
        "db.example.org",
        "docs.python.org",
    ]
    assert made["egress"]["secrets"] == {"on_match": "hold", "oversize": "block", "limit": 2**25}
    assert made["git"]["remotes"][0]["key"] == "/home/me/.ssh/bot"
    assert made["supervise"] is True


def test_later_wins_maps_merge_and_routes_are_joined(home) -> None:
    home.bottle(
        "base",
        "resources: {cpus: 1, pids: 9}\negress: {routes: [{host: a.org}, {host: b.org}]}\nenv: {A: 1x, B: x}",
    )
    home.bottle(
        "web",
        "extends: base\nresources: {cpus: 2}\negress: {routes: [{host: B.org.}, {host: c.org}]}\nenv: {B: y}",
    )
    made = home.composed("web")
    assert made["resources"] == {"cpus": 2.0, "memory": None, "pids": 9, "disk": None}
    assert [route["host"] for route in made["egress"]["routes"]] == ["a.org", "b.org", "c.org"]
    assert made["env"] == {"A": "1x", "B": "y"}


def test_parents_count_from_left_to_right_and_a_shared_base_once(home) -> None:
    home.bottle("base", "env: {A: base, B: base, C: base}\nsupervise: true")
    home.bottle("left", "extends: base\nenv: {A: left, B: left}")
    home.bottle("right", "extends: base\nenv: {B: right}\nsupervise: false")
    home.bottle("own", "extends: [left, right]\nenv: {C: own}")
    made = home.composed("own")
    assert made["env"] == {"A": "left", "B": "right", "C": "own"}
    assert made["supervise"] is False


def test_a_later_file_changes_a_credential_and_a_route_whole(home) -> None:
    home.bottle(
        "base",
        "credentials: {k: {from: {env: A}, header: x-a, prefix: p}}\n"
        "egress: {routes: [{host: a.org, credential: k}]}",
    )
    home.bottle(
        "own",
        "extends: base\ncredentials: {k: {from: {file: /x}, bearer: true}}\n"
        "egress: {routes: [{host: a.org, upstream: '127.0.0.1:1'}]}",
    )
    made = home.composed("own")
    credential = made["credentials"]["k"]
    assert (credential["source"], credential["name"], credential["prefix"]) == ("file:/x", AUTH, "Bearer ")
    (route,) = made["egress"]["routes"]
    assert route["credential"] is None
    assert route["upstream"] == {"host": "127.0.0.1", "port": 1, "tls": False}


def test_a_circle_is_refused_with_the_chain(home) -> None:
    home.bottle("a", "supervise: true\nextends: b")
    home.bottle("b", "extends: [c]")
    home.bottle("c", "extends: a")
    assert "c.md:2: extends: goes round in a circle: a → b → c → a" in home.refusal("a")
    home.bottle("self", "extends: self")
    assert "circle: self → self" in home.refusal("self")


def test_a_missing_parent_is_refused_with_the_chain_and_the_nearest_name(home) -> None:
    home.bottle("base")
    home.bottle("middle", "supervise: true\nextends:\n  - base\n  - bsae")
    home.bottle("own", "extends: middle")
    said = home.refusal("own")
    assert (
        "middle.md:5: extends: there is no bottle `bsae` (own → middle → bsae). Did you mean `base`?" in said
    )


def test_problems_of_a_file_and_of_its_parents_are_listed_together(home) -> None:
    home.bottle("base", "x: 1")
    home.bottle("own", "extends: base\ny: 1")
    said = home.refusal("own")
    assert "base.md:2: unknown key `x`" in said
    assert "own.md:3: unknown key `y`" in said


def test_a_name_in_extends_can_not_leave_the_folder(home) -> None:
    (home.root / "evil.md").write_text("---\nsupervise: true\n---\n")
    home.bottle("own", "extends: ../evil")
    assert "own.md:2: extends[0]: `../evil` can't be a name" in home.refusal("own")


def test_a_ladder_of_wrong_parents_is_walked_once(home) -> None:
    home.bottle("b0", "x: 1")
    for step in range(1, 28):
        home.bottle(f"b{step}", f"extends: [b{step - 1}, c{step - 1}]\nx: 1")
        home.bottle(f"c{step - 1}", f"extends: [b{max(step - 2, 0)}]\nx: 1")
    assert "unknown key `x`" in home.refusal("b27")


def test_a_chain_without_end_is_cut(home) -> None:
    for step in range(60):
        home.bottle(f"b{step}", f"extends: b{step + 1}")
    assert "bottles deep" in home.refusal("b0")
