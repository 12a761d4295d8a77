"""A stopped bottle is held while it is copied: whoever goes on with it, or lets it go, waits."""

import threading
from pathlib import Path

import pytest

from bot_bottle.errors import HostError
from bot_bottle.launch import kept
from bot_bottle.state.model import RunRecord
from support.backends import make_plan


def a_kept_bottle(root: Path) -> RunRecord:
    folder = root / "kept"
    for name in ("workspace", "base"):
        (folder / name).mkdir(parents=True)
    (folder / "home.tar").write_bytes(b"home")
    (folder / "kept.json").write_text("{}")
    return RunRecord(
        "one", "one", "b", "namespace", "ended", str(root), "copy", str(root / "r"), str(folder), 0.0
    )


@pytest.mark.parametrize("what", ["take", "let_go"])
def test_whoever_wants_what_is_being_copied_waits_and_then_has_all_of_it(tmp_path, what, monkeypatch):
    record, plan = a_kept_bottle(tmp_path), make_plan(tmp_path)
    Path(plan.paths.state).mkdir()
    done = threading.Event()
    monkeypatch.setattr("bot_bottle.launch.copies.put_away", lambda _: None)

    def want() -> None:
        kept.take(record, plan) if what == "take" else kept.let_go(record)
        done.set()

    wanting = threading.Thread(target=want)
    with kept.held(record):
        wanting.start()
        assert not done.wait(0.3), "it was taken from under the copying"
        assert kept.is_kept(record)
    wanting.join(60)
    assert done.is_set()
    assert not kept.is_kept(record)
    with pytest.raises(HostError, match="kept no more"), kept.held(record):
        pass


def test_of_one_that_is_given_away_nothing_is_copied(tmp_path):
    record = a_kept_bottle(tmp_path)
    (tmp_path / "kept/kept.json").unlink()
    (tmp_path / "new").mkdir()
    with pytest.raises(HostError, match="kept no more"):
        kept.copy_to(record, str(tmp_path / "new"))
    assert list((tmp_path / "new").iterdir()) == []
