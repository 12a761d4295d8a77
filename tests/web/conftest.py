"""A page over a made-up desk, raw clients of it, and a real browser."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from bot_bottle.testing.desk import FakeDesk
from bot_bottle.web.server import Service
from web.client import Client


@contextmanager
def running(desk: Any, *, port: int = 0) -> Iterator[Service]:
    """The page of `desk`; `service.said` is what the operator was told."""
    said: list[str] = []
    with Service(lambda: nullcontext(desk), port=port, announce=said.append) as service:
        service.said = said  # type: ignore[attr-defined]
        thread = threading.Thread(target=service.run)
        thread.start()
        try:
            assert service.started.wait(60)
            yield service
        finally:
            service.stop()
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


@pytest.fixture
def service(desk: FakeDesk) -> Iterator[Service]:
    with running(desk) as service:
        yield service


@pytest.fixture
def stranger(service: Service) -> Client:
    """A client that has no session."""
    return Client(service.port, service.name)


@pytest.fixture
def client(service: Service) -> Client:
    """A client that came by a link."""
    made = Client(service.port, service.name)
    made.sign_in(service.link())
    return made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium. For a module and not longer: what drives it keeps a loop of asyncio running in this thread."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any, service: Service) -> Iterator[Callable[..., Any]]:
    """Opens the page in a browser of its own, signed in by a link; an error or a refusal by its content policy fails the test."""
    contexts = []
    troubles: list[str] = []

    def open_(link: str | None = None, **options: Any) -> Any:
        context = chromium.new_context(viewport={"width": 1200, "height": 800}, **options)
        context.set_default_timeout(60000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("console", lambda said: troubles.append(said.text) if "Policy" in said.text else None)
        page.on("dialog", lambda dialog: troubles.append(f"dialog: {dialog.message}"))
        page.goto(service.link() if link is None else link)
        if link is None:
            page.wait_for_selector("#line.inbox")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert troubles == []
