#!/usr/bin/env python3
"""Takes pictures of the inbox's page: wide, dark, and as on a phone. From a running one, or from a made-up desk.

tools/inbox_pictures.py FOLDER --link 'http://inbox-….localhost:PORT/#key=…'
tools/inbox_pictures.py FOLDER --sample
"""

import argparse
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

SIZES = {"wide": (1200, 760), "phone": (390, 844)}


@contextmanager
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    import os

    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("inbox_pictures: chromium is not installed")
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield chromium
        finally:
            chromium.close()


def take(link: str, folder: Path) -> list[Path]:
    """Pictures of what waits and of the first proposal; the link is used up by it."""
    taken = []
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        page = chromium.new_context(device_scale_factor=2).new_page()
        page.goto(link)
        page.wait_for_selector("#line.inbox")
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                names = ["list", "proposal"] if page.query_selector("button.open") else ["empty"]
                for name in names:
                    if name == "proposal":
                        page.click("ol.list li:first-child:not(.settling) button.open")
                        page.wait_for_selector(".detail .actions button[aria-disabled=false]")
                        page.mouse.move(0, 0)
                    path = folder / f"inbox-{name}-{size}-{scheme}.png"
                    page.screenshot(path=str(path))
                    taken.append(path)
                if names[-1] == "proposal":
                    page.keyboard.press("Escape")
                    page.wait_for_selector(".detail h2", state="detached")
    return taken


@contextmanager
def sample() -> Iterator[str]:
    """The link of a page over a made-up desk."""
    from bot_bottle.policy.approval import Effect, Terms
    from bot_bottle.policy.model import Route
    from bot_bottle.testing.desk import FakeDesk
    from bot_bottle.web.server import Service

    desk = FakeDesk()
    desk.ask(
        "docs.example.org", age=740, effect=Effect(requests=12, hosts=1), repeats=2,
        words="I need the library's documentation to see how the retry option is spelled.",
    )  # fmt: skip
    desk.ask(
        routes=[Route("files.example.net", 443, methods=("POST",), paths=("/upload/**",))], run="porter-9f3a",
        agent="porter", bottle="mobile", age=300,
        effect=Effect(3, 1, (), ("files.example.net",), ("Anybody can have an account there.",)),
        words="The build artefact has to be uploaded, as the task says.",
    )  # fmt: skip
    for run, bottle in (("tester-11aa", "api"), ("tester-22bb", "shop"), ("tester-33cc", "site")):
        desk.ask("pypi.example.org", run=run, agent="tester", bottle=bottle, age=95, effect=Effect(41, 1))
    desk.ask(
        kind="capability", routes=[], title="Install postgresql-client", run="tester-11aa", agent="tester",
        bottle="api", age=20, words="psql is missing.",
    )  # fmt: skip
    earlier = desk.ask("registry.example.org", age=4000, effect=Effect(2, 1))
    from bot_bottle.policy.approval import Approval

    terms = Terms("time", 1800)
    desk.approve([Approval(earlier, desk.show(earlier, terms).digest, terms)])
    desk.reject([desk.ask("paste.example.com", age=5000)], "Not from a bottle with a key.")
    with Service(lambda: nullcontext(desk), announce=lambda _: None) as service:
        thread = threading.Thread(target=service.run)
        thread.start()
        service.started.wait(10)
        try:
            yield service.link()
        finally:
            service.stop()
            thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description="Takes pictures of the inbox's page.")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--link", help="the one-time link that bot-bottle inbox --web printed")
    which.add_argument("--sample", action="store_true", help="of made-up proposals")
    options = parser.parse_args()
    if options.link:
        taken = take(options.link, options.folder)
    else:
        with sample() as link:
            taken = take(link, options.folder)
    print(*taken, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
