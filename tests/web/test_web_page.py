"""The page in a real browser: what a person sees, by mouse, by keyboard and on a phone, and what can't happen to them."""

import re

import pytest

from bot_bottle.errors import StateError
from bot_bottle.policy.approval import Approval, Decided, Effect, Terms
from bot_bottle.policy.model import Route
from support.waiting import wait_for

pytestmark = pytest.mark.xdist_group("chromium")
READY = ".detail .actions button.yes[aria-disabled=false]"


def show(page, title):
    """Opens the proposal with that title and waits until it can be decided."""
    page.locator("li:not(.settling) > button.open", has_text=title).click()
    page.wait_for_function("title => document.querySelector('.detail h2')?.textContent === title", arg=title)


def ready(page, selector=READY):
    page.wait_for_selector(selector)


def text(page, selector):
    return page.inner_text(selector)


def test_a_proposal_shows_its_effect_before_the_agents_words_and_is_approved(open_page, desk):
    desk.ask(
        "api.example.org", words="Trust me.", agent="fixer", bottle="work",
        effect=Effect(12, 1, ("api.example.org",), ("api.example.org",), ("It was refused yesterday.",)),
    )  # fmt: skip
    page = open_page()
    show(page, "Reach api.example.org:443")
    said = text(page, ".detail")
    order = ["work", "What it would change", "{host: api.example.org}", "Reaches api.example.org, where a credential",
             "takes in whatever", "It was refused yesterday", "12 requests to 1 host", "For how long", "Trust me."]  # fmt: skip
    assert [said.index(part) for part in order] == sorted(said.index(part) for part in order)
    ready(page)
    page.click(READY)
    page.wait_for_selector(".outcome >> text=Approved and in force.")
    assert [approval.terms for approval in desk.approvals] == [Terms("bottle")]
    assert page.locator(".waiting li").count() == 0


def test_news_shows_without_a_reload_and_in_the_title(open_page, desk):
    page = open_page()
    assert "Nothing waits." in text(page, "main")
    desk.ask("a.example.org")
    page.wait_for_selector("text=Reach a.example.org:443")
    assert page.title() == "(1) bot-bottle inbox"
    desk.end("p0001", "expired")
    page.wait_for_selector("text=Nothing waits.")
    assert page.title() == "bot-bottle inbox"


def test_what_is_looked_at_stays_as_it_is_and_says_when_it_changed(open_page, desk):
    name = desk.ask("a.example.org")
    page = open_page()
    show(page, "Reach a.example.org:443")
    ready(page)
    before = text(page, ".effect")
    desk.say(name, effect=Effect(sinks=("a.example.org",)))
    page.wait_for_selector("text=This changed since you looked at it.")
    assert text(page, ".effect") == before
    page.locator(".detail .actions button.yes").click(force=True)
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    ready(page, ".again[aria-disabled=false]")
    assert desk.approvals == []
    page.click(".again")
    page.wait_for_selector(".effect >> text=takes in whatever")
    ready(page)
    page.click(READY)
    page.wait_for_selector(".outcome >> text=Approved and in force.")
    assert len(desk.approvals) == 1


def test_a_reload_comes_back_to_what_was_looked_at(open_page, desk):
    desk.ask("a.example.org")
    page = open_page()
    show(page, "Reach a.example.org:443")
    page.check("[name=scope][value=once]")
    ready(page, READY + " >> text=Approve once")
    assert not page.is_visible(".notice")
    page.reload()
    ready(page)
    assert not page.is_visible(".notice")
    page.go_back()
    page.wait_for_selector(".detail h2", state="detached")


def test_what_was_decided_elsewhere_can_not_be_decided_again(open_page, desk):
    name = desk.ask("a.example.org")
    page = open_page()
    show(page, "Reach a.example.org:443")
    ready(page)
    desk.reject([name])
    page.wait_for_selector("text=This does not wait any more.")
    assert page.locator(READY).count() == 0
    assert "Reach a.example.org:443" in text(page, ".detail h2")


def test_buttons_are_dead_for_the_first_half_second(open_page, desk):
    """A click that was meant for what stood there before decides nothing; nor does a key that is held down."""
    desk.ask("a.example.org", age=9)
    page = open_page()
    page.evaluate("""() => {
        window.clicks = [];
        let since = 0;
        new MutationObserver(() => {
            const yes = document.querySelector(".detail .actions button.yes");
            if (yes && !since) since = performance.now();
            if (yes && performance.now() - since < 400) { yes.click(); clicks.push(performance.now() - since); }
        }).observe(document.body, {subtree: true, childList: true, attributes: true});
        window.settled = () => since && performance.now() - since > 400;
    }""")
    show(page, "Reach a.example.org:443")
    page.wait_for_function("() => window.settled()")
    assert page.evaluate("clicks.length") > 0
    assert desk.approvals == []
    ready(page)
    page.click(READY)
    wait_for(lambda: len(desk.approvals) == 1, "the approval")


def test_a_line_that_moves_under_the_finger_is_dead_for_a_moment(open_page, desk):
    first = desk.ask("first.example.org", age=20)
    desk.ask("second.example.org", age=10)
    page = open_page()
    page.wait_for_selector("li:not(.settling) >> text=second")
    page.evaluate("""() => {
        window.opened = [];
        new MutationObserver(() => {
            const line = document.querySelector(".waiting li.settling");
            if (line) { line.querySelector("button.open").click(); line.querySelector("input").click(); opened.push(1); }
        }).observe(document.querySelector("ol.list"), {subtree: true, childList: true, attributes: true});
    }""")
    desk.end(first, "withdrawn")
    page.wait_for_function("() => opened.length > 0")
    page.wait_for_selector("li:not(.settling) >> text=second")
    assert page.locator(".detail h2").count() == 0
    assert not page.is_checked(".waiting li input")


def test_terms_are_computed_anew_by_the_server_and_shown(open_page, desk):
    desk.ask("a.example.org")
    page = open_page()
    show(page, "Reach a.example.org:443")
    page.check("text=for a time")
    page.wait_for_selector("text=Approve for 30 min")
    page.select_option(".terms select", "10")
    ready(page, READY + " >> text=Approve for 10 min")
    page.click(READY)
    wait_for(lambda: [each.terms for each in desk.approvals] == [Terms("time", 600)], "the approval")


def test_edited_routes_are_shown_computed_before_they_can_be_approved(open_page, desk):
    desk.ask("a.example.org")
    page = open_page()
    show(page, "Reach a.example.org:443")
    ready(page, ".actions [data-key=e][aria-disabled=false]")
    page.click(".actions [data-key=e]")
    assert page.input_value("#routes") == "- {host: a.example.org}\n"
    page.fill("#routes", "- {host: a.example.org, colour: red}")
    page.click("dialog .yes[aria-disabled=false]")
    page.wait_for_selector("dialog .problem >> text=1:")
    page.fill("#routes", "- {host: a.example.org, methods: [GET]}")
    page.click("dialog .yes[aria-disabled=false]")
    page.wait_for_selector("text=as you edited it")
    assert "methods: [GET]" in text(page, ".diff")
    assert desk.approvals == []
    ready(page)
    page.click(READY)
    wait_for(lambda: desk.policies.get("fixer-2345"), "the policy")
    assert desk.policies["fixer-2345"].routes == (Route("a.example.org", 443, methods=("GET",)),)


def test_what_can_not_be_approved_says_why(open_page, desk):
    desk.ask("a.example.org", problem="The name is not one that can be reached.")
    page = open_page()
    show(page, "Reach a.example.org:443")
    ready(page, ".actions button.no[aria-disabled=false]")
    assert "The name is not one" in text(page, ".problem")
    assert page.locator(READY).count() == 0


def test_a_capability_is_called_recorded_and_not_applied(open_page, desk):
    name = desk.ask(kind="capability", routes=[], title="Install make")
    page = open_page()
    show(page, "Install make")
    assert "recorded and not applied" in text(page, ".change")
    ready(page)
    page.click(READY)
    page.wait_for_selector(".outcome >> text=recorded, and not applied by anything yet")
    assert desk.show(name).proposal.state == "approved"


def test_an_approval_is_in_force_only_once_the_enforcer_says_so(open_page, desk):
    name = desk.ask("a.example.org")
    desk.outcomes[name] = Decided(name, "approved")
    page = open_page()
    show(page, "Reach a.example.org:443")
    ready(page)
    page.click(READY)
    page.wait_for_selector(".outcome >> text=Approved, not in force yet.")
    desk.end(name, "failed", "The policy changed meanwhile.")
    page.wait_for_selector(".outcome >> text=could not be put in force: The policy changed meanwhile.")


def test_a_rejection_takes_a_reason(open_page, desk):
    name = desk.ask("a.example.org")
    page = open_page()
    show(page, "Reach a.example.org:443")
    ready(page, ".actions button.no[aria-disabled=false]")
    page.click(".actions button.no")
    page.fill("#reason", "Use the mirror.")
    page.check("dialog input[type=checkbox]")
    page.click("dialog button.no[aria-disabled=false]")
    page.wait_for_selector(".outcome >> text=Rejected.")
    assert desk.rejections == [(name, "Use the mirror.", True)]


def test_the_same_from_several_bottles_is_one_line_and_one_decision(open_page, desk):
    for number in range(3):
        desk.ask("a.example.org", run=f"run-{number}", bottle=f"bottle-{number}", age=9 - number)
    page = open_page()
    page.wait_for_selector("text=bottle-0 and 2 bottles more")
    assert page.locator(".waiting li").count() == 1
    show(page, "Reach a.example.org:443")
    page.uncheck(".alike label:has-text('bottle-2') input")
    ready(page)
    page.click(READY)
    wait_for(lambda: len(desk.approvals) == 2, "both approvals")
    assert [each.id for each in desk.approvals] == ["p0001", "p0002"]
    assert len({each.digest for each in desk.approvals}) == 2


def test_one_that_asks_for_the_same_with_another_effect_is_not_decided_with_it(open_page, desk):
    desk.ask("a.example.org", run="run-0", age=9)
    other = desk.ask(
        "a.example.org", run="run-1", bottle="rich", effect=Effect(credentialed=("a.example.org",))
    )
    page = open_page()
    show(page, "Reach a.example.org:443")
    assert page.locator(".alike").count() == 0
    ready(page)
    page.click(READY)
    page.wait_for_selector(".outcome >> text=in force")
    assert desk.show(other).proposal.state == "pending"


def test_a_batch_shows_all_of_it_before_it_is_agreed_to(open_page, desk):
    desk.ask("a.example.org", age=9)
    desk.ask("b.example.org", run="porter-1", bottle="mobile", effect=Effect(sinks=("b.example.org",)))
    desk.ask("c.example.org", problem="Not this one.")
    page = open_page()
    page.wait_for_selector("li:not(.settling) >> text=Reach c.example.org:443")
    page.click("#all")
    page.click(".bar .yes[aria-disabled=false]")
    page.wait_for_selector("dialog h2 >> text=Approve 2 of these 3")
    said = text(page, "dialog")
    for part in (
        "{host: a.example.org}",
        "{host: b.example.org}",
        "Opens b.example.org",
        "Left out: Not this one.",
        "mobile",
    ):
        assert part in said
    page.click("dialog .yes[aria-disabled=false]")
    page.wait_for_selector("#trouble >> text=2: approved and in force.")
    assert [each.id for each in desk.approvals] == ["p0001", "p0002"]


def test_a_batch_that_changes_under_the_dialog_has_to_be_looked_at_again(open_page, desk):
    desk.ask("a.example.org", age=9)
    name = desk.ask("b.example.org")
    page = open_page()
    page.wait_for_selector("li:not(.settling) >> text=Reach b.example.org:443")
    page.click("#all")
    page.click(".bar .yes[aria-disabled=false]")
    page.wait_for_selector("dialog .yes[aria-disabled=false]")
    desk.say(name, effect=Effect(sinks=("b.example.org",)))
    page.wait_for_selector("dialog >> text=Some of these changed")
    assert page.locator("dialog .yes[aria-disabled=false]").count() == 0
    page.click("dialog >> text=Look again")
    page.wait_for_selector("dialog >> text=Opens b.example.org")
    page.click("dialog .yes[aria-disabled=false]")
    wait_for(lambda: len(desk.approvals) == 2, "the approvals")


def test_several_are_rejected_at_once(open_page, desk):
    names = [desk.ask("a.example.org", age=9), desk.ask("b.example.org")]
    page = open_page()
    page.wait_for_selector("li:not(.settling) >> text=Reach b.example.org:443")
    page.click("#all")
    page.click(".bar .no[aria-disabled=false]")
    page.click("dialog button.no[aria-disabled=false]")
    page.wait_for_selector("#trouble >> text=2: rejected.")
    assert sorted(each[0] for each in desk.rejections) == names


def test_a_grant_is_withdrawn_after_a_question(open_page, desk):
    name = desk.ask("a.example.org")
    desk.approve([Approval(name, desk.show(name).digest)])
    page = open_page()
    page.click("nav >> text=Grants 1")
    page.click(".page .no[aria-disabled=false]")
    page.click("dialog button.no[aria-disabled=false]")
    page.wait_for_selector("text=No grant holds.")
    assert desk.withdrawals == ["g0001"]


def test_the_history_says_what_became_of_what(open_page, desk):
    desk.reject([desk.ask("a.example.org")], "Not here.")
    page = open_page()
    page.click("nav >> text=History")
    page.wait_for_selector("text=rejected: Not here.")
    page.click(".page button.open")
    page.wait_for_selector(".detail h2 >> text=Reach a.example.org:443")
    assert page.locator(".detail .actions").count() == 0


def test_everything_is_decided_by_keyboard_alone(open_page, desk):
    desk.ask("a.example.org", age=20)
    desk.ask("b.example.org", age=10)
    desk.ask("c.example.org")
    page = open_page()
    page.wait_for_selector("li:not(.settling) >> text=Reach c.example.org:443")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector(".detail h2 >> text=Reach a.example.org:443")
    page.keyboard.press("a")
    ready(page)
    page.keyboard.press("Enter")
    page.wait_for_selector(".outcome >> text=in force")
    page.wait_for_selector(".next:focus[aria-disabled=false]")
    page.keyboard.press("Enter")
    page.wait_for_selector(".detail h2 >> text=Reach b.example.org:443")
    page.keyboard.press("r")
    ready(page)
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog #reason:focus")
    page.keyboard.type("No.")
    page.wait_for_selector("dialog button.no[aria-disabled=false]")
    page.keyboard.press("Enter")
    page.wait_for_selector(".outcome >> text=Rejected.")
    page.wait_for_selector(".next:focus[aria-disabled=false]")
    page.keyboard.press("Enter")
    page.wait_for_selector(".detail h2 >> text=Reach c.example.org:443")
    page.keyboard.press("Escape")
    page.wait_for_selector(".detail h2", state="detached")
    page.wait_for_selector("button.open:focus")
    page.keyboard.press("x")
    page.wait_for_selector("text=1 chosen")
    page.keyboard.press("?")
    page.wait_for_selector("dialog >> text=Keys")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert len(desk.approvals) == 1
    assert desk.rejections == [("p0002", "No.", False)]


def test_typing_in_a_field_is_no_command(open_page, desk):
    desk.ask("a.example.org")
    page = open_page()
    show(page, "Reach a.example.org:443")
    ready(page, ".actions button.no[aria-disabled=false]")
    page.click(".actions button.no")
    page.locator("#reason").press_sequentially("area? jxn")
    assert page.input_value("#reason") == "area? jxn"
    assert page.locator("dialog").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_small_phone(open_page, desk, scheme):
    long = "a" * 60 + "." + "b" * 60 + ".example.org"
    for number in range(2):
        desk.ask(long, run="r" * 40 + str(number), agent="g" * 30, bottle="b" * 30 + str(number),
                 effect=Effect(3, 1, (long,), (long,)),
                 words="w" * 3000, age=9)  # fmt: skip
    desk.ask("other.example.org")
    page = open_page(color_scheme=scheme, has_touch=True)
    page.set_viewport_size({"width": 320, "height": 568})

    def fits():
        assert page.evaluate("document.documentElement.scrollWidth") <= 320

    page.wait_for_selector("li:not(.settling) >> text=other")
    fits()
    page.tap("li:not(.settling) button.open")
    ready(page)
    fits()
    assert page.locator(READY).evaluate("e => e.getBoundingClientRect().bottom <= innerHeight"), (
        "the buttons are in reach"
    )
    assert not page.is_visible("ol.list")
    page.tap("text=Edit…")
    fits()
    page.keyboard.press("Escape")
    page.tap("text=Back")
    page.wait_for_selector("ol.list >> visible=true")
    page.tap("#all")
    page.tap(".bar .yes[aria-disabled=false]")
    page.wait_for_selector("dialog .yes[aria-disabled=false]")
    fits()
    assert page.locator("dialog .yes").evaluate("e => e.getBoundingClientRect().bottom <= innerHeight")
    page.keyboard.press("Escape")
    for view in ("Grants", "History"):
        page.tap(f"nav >> text={view}")
        fits()


def test_everything_that_can_be_pressed_is_large_enough_and_has_a_name(open_page, desk):
    desk.ask("a.example.org", effect=Effect(sinks=("a.example.org",)), age=9)
    desk.ask("b.example.org")
    page = open_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_selector("li:not(.settling) >> text=Reach b.example.org:443")
    nameless = """() => [...document.querySelectorAll('button, input, select, textarea')].filter((e) => e.checkVisibility()
        && !(e.getAttribute('aria-label') || e.textContent.trim()
        || [...(e.labels || [])].some((l) => l.textContent.trim()))).length"""
    small = """() => [...document.querySelectorAll('button')].filter((e) => e.checkVisibility()
        && e.getBoundingClientRect().height < 34)
        .map((e) => e.outerHTML)"""
    assert page.evaluate(nameless) == 0
    assert page.evaluate(small) == []
    show(page, "Reach a.example.org:443")
    assert page.evaluate(nameless) == 0
    assert page.evaluate(small) == []
    sign = "getComputedStyle(document.querySelector('.badge'), '::before').content"
    assert (page.evaluate(sign), page.inner_text(".badge")) == ('"! "', "takes in data")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(open_page, desk, scheme):
    desk.ask(
        "a.example.org",
        effect=Effect(3, 1, ("a.example.org",), ("a.example.org",)),
        words="Please.",
        problem="No.",
        repeats=2,
    )
    page = open_page(color_scheme=scheme)
    show(page, "Reach a.example.org:443")
    page.wait_for_selector(".detail .actions button.no[aria-disabled=false]")
    poor = page.evaluate(CONTRAST)
    assert poor == []


CONTRAST = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3]) return c;
  } };
  return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('[aria-disabled=true]')
      && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((e) => {
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    return [e.className || e.tagName, (a + .05) / (b + .05)];
  }).filter(([, ratio]) => ratio < 4.5);
}"""


def test_nothing_moves_for_those_who_ask_for_that(open_page, desk):
    page = open_page(reduced_motion="reduce")
    moving = """() => [...document.querySelectorAll('*')].map((e) => getComputedStyle(e))
        .filter((style) => style.transitionDuration !== '0s' || style.animationName !== 'none').length"""
    assert page.evaluate(moving) == 0


def test_the_key_leaves_the_address_and_the_history(open_page, service):
    page = open_page()
    assert page.url == f"http://{service.name}:{service.port}/"
    assert "key" not in page.evaluate("location.href + document.referrer + JSON.stringify(history.state)")
    page.reload()
    page.wait_for_selector("#line.inbox")


def test_the_session_can_not_be_read_by_scripts_and_not_be_taken_to_another_port(open_page, chromium):
    page = open_page()
    assert page.evaluate("document.cookie") == ""
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["domain"][:6]) == (True, "Strict", "inbox-")


def test_without_a_link_there_is_nothing_and_a_used_one_says_so(open_page, service, desk):
    desk.ask("secret.example.org")
    link = service.link()
    page = open_page(link)
    page.wait_for_selector("#line.inbox")
    other = open_page(link)
    other.wait_for_selector("text=This link was used already")
    assert "secret.example.org" not in other.content()
    none = open_page(link.partition("#")[0])
    none.wait_for_selector("text=This browser is not signed in.")


def test_signing_out_empties_the_page(open_page, desk):
    desk.ask("secret.example.org")
    page = open_page()
    page.wait_for_selector("text=secret.example.org")
    page.click("#leave")
    page.wait_for_selector("text=Signed out.")
    assert "secret.example.org" not in page.content()
    page.reload()
    page.wait_for_selector("text=This browser is not signed in.")


def test_a_second_tab_of_the_same_browser_works_beside_the_first(open_page, service, desk):
    page = open_page()
    second = page.context.new_page()
    second.goto(service.link())
    second.wait_for_selector("#line.inbox")
    desk.ask("a.example.org")
    page.wait_for_selector("text=Reach a.example.org:443")
    show(page, "Reach a.example.org:443")
    show(second, "Reach a.example.org:443")
    ready(page)
    page.click(READY)
    second.wait_for_selector("text=This does not wait any more.")


def test_a_store_that_fails_shows_and_takes_the_buttons_away(open_page, desk):
    desk.ask("a.example.org")
    page = open_page()
    show(page, "Reach a.example.org:443")
    ready(page)
    desk.trouble = StateError("The record can't be read")
    page.wait_for_selector("#trouble >> text=The record can't be read")
    page.wait_for_selector("#line.trouble")
    assert page.locator(READY).count() == 0
    desk.trouble = None
    page.wait_for_selector("#line.inbox")
    ready(page)


def test_a_server_that_is_gone_shows_and_takes_the_buttons_away(open_page, desk, service):
    desk.ask("a.example.org")
    page = open_page()
    show(page, "Reach a.example.org:443")
    ready(page)
    service.stop()
    page.wait_for_selector("#trouble >> text=nothing can be decided")
    page.wait_for_selector("#line.down >> text=Not connected")
    assert page.locator(READY).count() == 0


def test_another_site_can_not_use_the_operators_browser(open_page, service, desk, chromium):
    """A page of somebody else's, in the same browser, that knows the whole address: it sees nothing, and decides nothing."""
    name = desk.ask("a.example.org")
    page = open_page()
    base = f"http://{service.name}:{service.port}"
    evil = page.context.new_page()
    evil.route(
        "http://evil.example/**",
        lambda route: route.fulfill(status=200, content_type="text/html", body="<!doctype html><body>x"),
    )
    evil.goto("http://evil.example/")
    tried = evil.evaluate(
        """async ([base, name]) => {
        const seen = [];
        const body = JSON.stringify({ids: [name]});
        for (const options of [{}, {method: 'POST', body}, {method: 'POST', body, mode: 'no-cors', credentials: 'include'},
            {method: 'POST', body, headers: {'Content-Type': 'application/json', 'X-Inbox-Key': 'x'}, credentials: 'include'}]) {
          try {
            const answer = await fetch(base + '/api/reject', options);
            seen.push(answer.type === 'opaque' ? 'opaque' : answer.status);
          } catch { seen.push('no'); }
        }
        const frame = document.createElement('iframe'); frame.src = base + '/'; document.body.append(frame);
        await new Promise((done) => frame.addEventListener('load', done));
        try { seen.push(frame.contentDocument ? 'framed' : 'closed'); } catch { seen.push('closed'); }
        const form = document.createElement('form'); form.method = 'POST'; form.action = base + '/api/reject'; form.target = 'x';
        form.enctype = 'text/plain'; document.body.append(form); form.submit();
        const image = new Image(); image.src = base + '/static/icon.svg';
        await new Promise((done) => {
          image.onload = () => { seen.push('image'); done(); };
          image.onerror = () => { seen.push('no'); done(); };
        });
        return seen;
    }""",
        [base, name],
    )
    assert set(tried) <= {"no", "closed", "opaque"}
    assert desk.rejections == desk.approvals == []
    page.wait_for_selector("#line.inbox")


def test_it_loads_nothing_from_elsewhere(open_page, service, desk):
    desk.ask("a.example.org")
    asked = []
    page = open_page(service.link().partition("#")[0])
    page.on("request", lambda request: asked.append(request.url))
    page.goto(service.link())
    page.reload()
    page.wait_for_selector("#line.inbox")
    show(page, "Reach a.example.org:443")
    assert asked
    assert {re.match(r"https?://[^/]+/", url)[0] for url in asked} == {
        f"http://{service.name}:{service.port}/"
    }
