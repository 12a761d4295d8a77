"""What a file on disk may be, and how its front matter is read."""

import os
from pathlib import Path

import pytest

from bot_bottle.errors import BotBottleError, ManifestError, NotFoundError, UsageError


def refuse_raw(home, raw: bytes) -> str:
    (home.root / "bottles" / "raw.md").write_bytes(raw)
    return home.refusal("raw")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "raw.md:1: has no front matter"),
        (b"backend: namespace\n", "raw.md:1: has no front matter"),
        (b"---\nbackend: namespace\n", "raw.md:1: has front matter without an end"),
        (b"---\n- a\n---\n", "raw.md:2: has front matter that is no map"),
        (b"---\nbackend: [\n---\n", "raw.md:2: is not YAML"),
        (b"---\nsupervise: true\nbackend: 'x\n---\n", "is not YAML"),
        (b"---\nimage: a\x00b\n---\n", "raw.md:2: has the invisible character U+0000"),
        (b"---\nimage: 'a\xc2\x9bb'\n---\n", "raw.md:2: has the invisible character U+009B"),
        (b"---\nx: y\n---\n\n\x1b[2J\n", "raw.md:5: has the invisible character U+001B"),
        (b'---\nimage: "a\\0b"\n---\n', "raw.md:2: image: has the invisible character U+0000"),
        (b'---\nimage: "\\ud800"\n---\n', "raw.md:2: image: has the invisible character U+D800"),
        (b'---\nimage: "\\UFFFFFFFF"\n---\n', "is not YAML"),
        (b"---\nimage: a\n\nfoo: \xff\n---\n", "raw.md:4: is not UTF-8 text"),
        (b"\xff\xfe-\x00-\x00-\x00", "raw.md:1: is not UTF-8 text"),
        (b"---\nimage: a\nenv: {}\nimage: b\n---\n", "raw.md:4: image: is given twice, first on line 2"),
        (b"---\nenv: {A: x,\n  A: y}\n---\n", "raw.md:3: env.A: is given twice, first on line 2"),
        (b"---\nenv: &a {A: x}\ngit: *a\n---\n", "raw.md:3: uses a YAML alias"),
        (b"---\nenv: &a {A: *a}\n---\n", "raw.md:2: uses a YAML alias"),
        (b"---\nenv: {<<: {A: x}}\n---\n", "raw.md:2: env.<<: is no name of an environment variable"),
        (b"---\nenv: !!python/object:os.system {}\n---\n", "raw.md:2: env: has the YAML tag"),
        (b"---\nimage: !!binary aGk=\n---\n", "raw.md:2: image: has a YAML tag"),
        (b"---\n1: x\n---\n", "raw.md:2: has a key that is not plain text"),
        (b"---\n? [a]\n: x\n---\n", "raw.md:2: has a key that is not plain text"),
        (b"---\nimage:\n---\n", "raw.md:2: image: is empty"),
        (b"---\nresources: {pids: " + b"9" * 5000 + b"}\n---\n", "raw.md:2: resources.pids: is a number"),
        (b"---\na: " + b"[" * 5000 + b"\n---\n", "raw.md:2: is not YAML: nested more than"),
        (b"---\na: " + b"{a: " * 5000 + b"\n---\n", "raw.md:2: is not YAML: nested more than"),
        (b"---\nx: 1\n---\n" + b"a" * (256 * 1024), "raw.md:1: is larger than 256 KiB"),
        (b"---\n%YAML 1.1\n---\n", "is not YAML"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_not_plain_front_matter_is_refused_with_its_line(home, raw: bytes, said: str) -> None:
    assert said in refuse_raw(home, raw)


@pytest.mark.parametrize(
    "raw", [b"\xef\xbb\xbf---\nsupervise: true\n---\n", b"---\r\nsupervise: true\r\n---\r\nx\r\n"]
)
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(home, raw: bytes) -> None:
    (home.root / "bottles" / "raw.md").write_bytes(raw)
    assert home.composed("raw")["supervise"] is True


def test_lines_are_right_in_a_file_with_windows_line_ends(home) -> None:
    assert "raw.md:3: unknown key `y`" in refuse_raw(home, b"---\r\nimage: a\r\ny: 1\r\n---\r\n")


def test_words_that_older_yaml_takes_for_something_else_are_text(home) -> None:
    home.bottle("words", "env: {A: no, B: on, C: 22:22, D: 2020-01-01, E: 0x10, F: 1_000, G: .inf}")
    expected = {"A": "no", "B": "on", "C": "22:22", "D": "2020-01-01", "E": "0x10", "F": "1_000", "G": ".inf"}
    assert home.composed("words")["env"] == expected


def test_all_problems_of_a_file_are_listed_at_once_in_order(home) -> None:
    home.bottle(
        "many",
        """
        suprvise: true
        resources: {memory: lots, pids: -1, cpus: yes}
        egress:
          routes:
            - {host: 10.0.0.1, protocol: tcp}
            - {hots: a.example.org}
        env: {A: 1}
        """,
    )
    with pytest.raises(ManifestError) as caught:
        home.composed("many")
    lines = [line.partition("many.md:")[2] for line in caught.value.details.splitlines()]
    assert [int(line.partition(":")[0]) for line in lines] == [2, 3, 3, 3, 6, 6, 7, 7, 8]
    assert "2: unknown key `suprvise`; did you mean `supervise`?" in lines
    assert "7: unknown key `hots` in egress.routes[1]; did you mean `host`?" in lines


def test_a_key_in_the_wrong_place_is_told_its_place(home) -> None:
    home.bottle("misplaced", "routes: []\nmemory: 4GiB")
    said = home.refusal("misplaced")
    assert "misplaced.md:2: unknown key `routes`; it belongs under `egress`" in said
    assert "misplaced.md:3: unknown key `memory`; it belongs under `resources`" in said


def test_a_secret_put_in_the_wrong_place_is_not_repeated(home) -> None:
    home.bottle(
        "leak",
        """
        credentials:
          one: {from: {env: "sk-hunter2!"}, bearer: sk-hunter2}
          two: {from: sk-hunter2, header: "sk hunter2"}
          three: {from: {file: sk-hunter2, keyring: sk-hunter2}, header: x-a, prefix: "sk-hunter2é"}
          four: sk-hunter2
        """,
    )
    assert "hunter2" not in home.refusal("leak")


def test_a_named_pipe_is_refused_and_does_not_hang(home) -> None:
    os.mkfifo(home.root / "bottles" / "pipe.md")
    assert "pipe.md:1: is not a regular file" in home.refusal("pipe")


def test_a_folder_in_the_place_of_a_file_is_refused(home) -> None:
    (home.root / "bottles" / "folder.md").mkdir()
    assert "folder.md:1: is not a regular file" in home.refusal("folder")


def test_a_file_that_everyone_can_write_is_refused(home) -> None:
    home.bottle("open").chmod(0o666)
    assert "open.md:1: can be written by everyone" in home.refusal("open")


def test_a_link_within_the_root_is_followed_and_one_that_leads_out_is_refused(home, tmp_path: Path) -> None:
    home.bottle("real", "supervise: true")
    (home.root / "bottles" / "near.md").symlink_to("real.md")
    assert home.composed("near")["supervise"] is True
    (tmp_path / "outside.md").write_text("---\nsupervise: true\n---\n")
    (home.root / "bottles" / "far.md").symlink_to(tmp_path / "outside.md")
    assert "far.md:1: is a link that leads out" in home.refusal("far")


def test_a_root_that_is_a_link_itself_is_right(home) -> None:
    real = home.root.with_name("dotfiles")
    home.root.rename(real)
    home.root.symlink_to(real)
    home.bottle("default", "supervise: true")
    assert home.composed("default")["supervise"] is True


@pytest.mark.parametrize("name", ["../x", "x/y", "", ".", "X", "x" * 41, "a\x00b", "-x", "ä"])
def test_a_name_that_could_leave_the_folder_is_no_name(home, name: str) -> None:
    with pytest.raises(UsageError):
        home.load(name)
    home.agent("claude")
    with pytest.raises(UsageError):
        home.load("claude", bottle=name)


def test_a_missing_bottle_names_the_nearest_and_says_what_there_is(home) -> None:
    home.bottle("default")
    home.bottle("web")
    with pytest.raises(NotFoundError) as caught:
        home.composed("defualt")
    assert "Did you mean `default`? There is: default, web." in str(caught.value)


def test_an_unreadable_folder_is_an_error_of_the_one_shape(home) -> None:
    for kind in ("agents", "bottles"):
        (home.root / kind).rmdir()
        (home.root / kind).symlink_to(kind)
    with pytest.raises(BotBottleError):
        home.load("claude")
