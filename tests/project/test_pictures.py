"""The documents' pictures: each is there and used, and what makes them still runs."""

import importlib.util
import re
import shutil
import struct
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs/pictures"


@pytest.fixture(scope="module")
def making():
    """tools/pictures.py."""
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "tools/pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_that_a_document_shows_is_there_and_none_is_left_over():
    shown = set()
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for name in re.findall(r"""(?:src="|\]\()([^")\s]+\.(?:png|svg))""", page.read_text()):
            assert (page.parent / name).is_file(), f"{page.name} shows {name}"
            shown.add((page.parent / name).resolve())
    assert {path.resolve() for path in PICTURES.iterdir()} == shown


def test_pictures_are_small_and_fetch_nothing(making):
    for path in PICTURES.iterdir():
        data = path.read_bytes()
        assert len(data) < making.MOST, path.name
        assert b"@import" not in data
        assert b"url(http" not in data
        assert b"<script" not in data
    sizes = {path.stem: struct.unpack(">II", path.read_bytes()[16:24]) for path in PICTURES.glob("*.png")}
    wanted = {"inbox-browser": making.WIDE, "inbox-phone": making.PHONE}
    assert sizes == {name: (width * 3 // 2, height * 3 // 2) for name, (width, height) in wanted.items()}


def test_the_terminals_picture_shows_what_waits(making, tmp_path, monkeypatch):
    for name in ("TERM", "COLORTERM", "NO_COLOR"):
        monkeypatch.setenv(name, "1")
    with making.sample() as open_desk:
        drawn = making.in_terminal(open_desk, tmp_path).read_text().replace("&#160;", " ")
    for said in (
        "3 proposals of 3 bottles in 2 decisions",
        "2 bottles ask for the same",
        "! Reach PUT",
        "+ {host: calendar",
    ):
        assert said in drawn


@pytest.mark.xdist_group("chromium")
def test_the_pages_pictures_are_taken_in_their_sizes(making, tmp_path):
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    with making.sample() as open_desk:
        wide, phone = making.in_browser(open_desk, tmp_path)
    assert struct.unpack(">II", wide.read_bytes()[16:24]) == tuple(side * 3 // 2 for side in making.WIDE)
    assert struct.unpack(">II", phone.read_bytes()[16:24]) == tuple(side * 3 // 2 for side in making.PHONE)


def test_the_bottles_in_them_are_ones_that_the_product_takes(making, tmp_path):
    from bot_bottle.manifest.load import load
    from bot_bottle.operate.demo_setup import lay_out
    from bot_bottle.policy.sinks import sink
    from bot_bottle.testing.script import parse, reply

    stage = lay_out(tmp_path, pages="127.0.0.1:8080", authority=tmp_path / "authority.pem", real=False)
    making.add_askers(stage)
    scripts = parse(making.script())
    for each in making.ASKERS:
        found = load(each.agent, root=stage.home / ".bot-bottle", repository=stage.repository)
        assert found["bottle"]["supervise"] is True
        said = reply(
            scripts, [{"role": "user", "content": f"You are the {each.agent}. Do your work."}], ["Bash"]
        )
        assert said.turn.calls[0].input["command"] == each.tries
    assert sink(making.SINK)


def test_a_picture_that_tells_of_this_machine_is_not_made(making, tmp_path):
    place = tmp_path / "picture.png"
    with pytest.raises(SystemExit, match="would show"):
        making._keep(place, b"", f"in {Path.home()}/project")
    with pytest.raises(SystemExit, match="200001 bytes"):
        making._keep(place, b"x" * 200_001, "")
    assert not place.exists()
