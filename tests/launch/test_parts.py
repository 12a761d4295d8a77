"""The keeper's parts, each by itself."""

import json
import os
import selectors
import signal
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.errors import InterruptedRun, NotFoundError
from bot_bottle.host.locks import keeper_alive
from bot_bottle.launch import control, folders
from bot_bottle.launch.output import Log, Outlet
from bot_bottle.launch.session import Session
from bot_bottle.launch.signals import Interrupts

GENUINE = b'{"event": "egress.refused", "data": {"host": "x"}, "run": "other"}'
frames = st.lists(
    st.tuples(st.sampled_from([control.INPUT, control.OUTPUT, control.EXIT]), st.binary(max_size=300)),
    max_size=8,
)


@given(frames, st.integers(1, 50))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(sent, size):
    wire = b"".join(control.frame(kind, payload) for kind, payload in sent)
    cutter = control.Frames()
    heard = [frame for at in range(0, len(wire), size) for frame in cutter.feed(wire[at : at + size])]
    assert heard == sent


def test_a_frame_that_claims_too_much_is_refused():
    with pytest.raises(ValueError, match="large"):
        list(control.Frames().feed(control.HEAD.pack(b"i", control.LARGEST + 1)))


def test_a_run_folder_is_alive_while_its_maker_is(tmp_path):
    path = str(tmp_path / "run" / "a-2345")
    lock = folders.make(path)
    assert keeper_alive(path)
    assert folders.dead(str(tmp_path / "run")) == []
    with pytest.raises(FileExistsError):
        folders.make(path)
    lock.release()
    assert not keeper_alive(path)
    assert folders.dead(str(tmp_path / "run")) == [path]
    folders.remove(path)
    folders.remove(path)
    assert not os.path.exists(path)


def test_removal_never_follows_a_link_and_overcomes_forbidden_folders(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    path = tmp_path / "run"
    (path / "deep" / "er").mkdir(parents=True)
    (path / "deep" / "er" / "file").write_text("x")
    (path / "link").symlink_to(precious)
    (path / "deep" / "er").chmod(0)
    (path / "deep").chmod(0o500)
    folders.remove(str(path))
    assert not path.exists()
    assert (precious / "file").read_text() == "kept"


def test_a_control_socket_works_below_a_path_that_is_too_long_for_one(tmp_path):
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    with control.listen(str(folder)) as server, control.connect(str(folder), {"want": "stop"}) as client:
        peer, _ = server.accept()
        assert list(control.Frames().feed(peer.recv(1000))) == [(control.HELLO, b'{"want": "stop"}')]
        assert (folder / folders.CONTROL).stat().st_mode & 0o777 == 0o600
        peer.close()
        assert client.recv(1) == b""


def test_talking_to_a_keeper_that_is_gone_is_not_found(tmp_path):
    with pytest.raises(NotFoundError):
        control.connect(str(tmp_path), {"want": "stop"})
    with pytest.raises(NotFoundError):
        control.connect(str(tmp_path / "nothing"), {"want": "stop"})


def test_the_log_is_bounded_and_keeps_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("bot_bottle.launch.output.LARGEST_LOG", 1000)
    log = Log(str(tmp_path / "output.log"))
    for number in range(100):
        log.write(b"%03d " % number * 10)
    log.close()
    assert sum(path.stat().st_size for path in tmp_path.glob("output*")) <= 2000
    assert (tmp_path / "output.log").read_bytes().endswith(b"099 ")


def test_an_outlet_never_blocks_and_gives_up_on_a_reader_that_left():
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    outlet.write(b"x" * (1 << 20))
    assert outlet.pending
    taken = 0
    while outlet.pending:
        taken += len(os.read(reading, 65536))
        outlet.flush()
    os.close(reading)
    outlet.write(b"more" * 65536)
    assert outlet.gone
    os.close(writing)


def test_an_interruption_waits_for_the_checkpoint_and_wakes_the_loop():
    with Interrupts() as interrupts:
        interrupts.checkpoint()
        os.kill(os.getpid(), signal.SIGTERM)
        assert (interrupts.count, interrupts.last) == (1, signal.SIGTERM)
        assert os.read(interrupts.fileno(), 10) == b"!"
        with pytest.raises(InterruptedRun):
            interrupts.checkpoint()


def test_the_sidecars_words_are_not_trusted():
    from bot_bottle.launch.sidecar import Sidecar

    mine, its = socket.socketpair()
    sidecar = object.__new__(Sidecar)
    sidecar.sock, sidecar._buffer = mine, b""
    for line in (b"nonsense", b"[1]", b'{"event": "run.ended", "data": {}}', GENUINE):
        its.sendall(line + b"\n")
    events = sidecar.events("mine-2345", sidecar.read() or [])
    assert [(event.run, event.kind) for event in events] == [("mine-2345", "egress.refused")]
    its.close()
    assert sidecar.read() is None
    mine.close()


def test_a_folder_is_removed_however_deep_and_closed(tmp_path):
    top = tmp_path / "deep"
    top.mkdir()
    before = os.getcwd()
    try:
        os.chdir(top)
        for _ in range(2000):
            os.mkdir("d")
            os.chdir("d")
        os.chmod("..", 0)
    finally:
        os.chdir(before)
    folders.remove(str(top))
    assert not top.exists()
    folders.remove(str(top))


def test_a_bundles_config_survives_the_way_to_a_bundle_that_was_forked_before():
    from bot_bottle.bundle.model import BundleConfig, Injection
    from bot_bottle.door.model import STANDARD
    from bot_bottle.policy.model import EgressPolicy, Route, Upstream
    from bot_bottle.secret import Secret

    upstream = Upstream(host="127.0.0.1", port=8080)
    policy = EgressPolicy(
        routes=(
            Route(host="a.example.org", port=443),
            Route(host="b.example.org", port=80, upstream=upstream),
        )
    )
    config = BundleConfig(
        run="a-2345", keeper=7, policy=policy, listeners=STANDARD, uid=5, gid=6,
        credentials={"key": Injection("header", "authorization", Secret("Bearer sk-1"), Secret("sk-1"), "held", True)},
        sensitive=(Secret("sk-2"),),
    )  # fmt: skip
    again = BundleConfig.from_document(json.loads(json.dumps(config.document())))
    assert again == config
    assert again.policy.fingerprint() == policy.fingerprint()
    assert "sk-" not in repr(again)


def test_a_session_forgets_what_is_closed_already_and_what_it_never_watched():
    """As it does of a bundle that did not come up: or the change that waits for it would never be undone."""
    session = Session.__new__(Session)
    session.selector = selectors.DefaultSelector()
    watched, other = socket.socketpair()
    with other, session.selector:
        session.watch(watched, lambda: None)
        watched.close()
        for sock in (watched, watched, other):
            session.forget(sock)
        assert not session.selector.get_map()
