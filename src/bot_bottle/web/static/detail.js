// One proposal: what it would change and do first, the terms, what the agent says last.

import { age, button, el, fill, many, now, scopeText, SCOPES, span, stateText } from "./dom.js";
import { send } from "./link.js";
import { editDialog, rejectDialog } from "./dialogs.js";

export class Detail {
  constructor(act) {
    this.act = act;
    this.node = el("section", { class: "detail", "aria-label": "Proposal", tabindex: "-1" });
    this.shown = null;
    this.live = true;
    this.looks = 0;
  }

  // Shows `id` as it is now, on `on` (null: as offered), with the routes of `text` where the operator edited them.
  // Throws when the server refuses; then everything stays as it was, and its buttons off.
  async look(id, on = null, text = null) {
    const number = ++this.looks;
    this.turn(false);
    const ids = [id, ...this.act.others(id)];
    const { shown } = await send("/api/look", { ids, on, text });
    if (number !== this.looks) return;
    const [first, ...rest] = shown;
    if (!first || first.id !== id) throw new Error("It is not there any more.");
    this.shown = first;
    this.text = text;
    this.mark = first.mark;
    this.alike = rest.filter((each) => each.change === first.change && each.state === "pending");
    this.stale = "";
    this.draw();
  }

  close() {
    this.looks += 1;
    this.shown = null;
    fill(this.node);
  }

  // Called after every news: what is shown stays as it is, and says when it is not so any more.
  check(live) {
    this.live = live;
    if (!this.shown || this.shown.state !== "pending" || this.done) return;
    const mark = this.act.mark(this.shown.id);
    const said = mark === undefined ? "This does not wait any more. " : "This changed since you looked at it. ";
    const stale = live && mark !== this.mark ? said : "";
    if (stale !== this.stale) {
      this.stale = stale;
      this.notice.hidden = !stale;
      fill(this.notice, stale && el("strong", null, said), stale && button("Look again", () => this.act.again(), { class: "again" }));
    }
    this.turn(this.live && !this.stale);
  }

  turn(on) {
    for (const each of this.buttons || []) each.turn(on && !(each.needs && this.shown.problem));
  }

  draw() {
    const shown = this.shown;
    const pending = shown.state === "pending";
    this.done = false;
    this.notice = el("div", { class: "notice", role: "alert", hidden: true });
    this.buttons = [];
    fill(
      this.node,
      el("p", { class: "back" }, el("button", { type: "button", class: "quiet", onclick: () => this.act.back() }, "‹ Back")),
      el("h2", { tabindex: "-1" }, shown.title),
      this.about(),
      this.notice,
      this.change(),
      this.effect(),
      shown.problem && el("div", { class: "problem", role: "note" }, el("h3", null, "Can't be approved like this"), el("p", { class: "pre" }, shown.problem)),
      pending && shown.applies && this.terms(),
      shown.in_file && el("div", null, el("h3", null, "In the bottle's file"), el("pre", { class: "file", tabindex: "0" }, shown.in_file)),
      pending && this.alike.length > 0 && this.all(),
      this.words(),
      pending && this.actions(),
    );
    this.act.drawn(shown);
    this.check(this.live);
  }

  about() {
    const shown = this.shown;
    const parts = [`Bottle ${shown.bottle}`, " · ", `agent ${shown.agent}`, " · ", `run ${shown.run}`, " · asked ", age(shown.made)];
    if (shown.repeats) parts.push(`, ${shown.repeats + 1} times`);
    if (shown.state === "pending") parts.push(` · expires in ${span(shown.expires - now())}`);
    return el("p", { class: "meta" }, parts, shown.state !== "pending" && el("strong", null, ` · ${stateText(shown)}${shown.reason ? `: ${shown.reason}` : ""}`));
  }

  change() {
    const shown = this.shown;
    const line = (sign, said, text) =>
      el("li", { class: sign === "+" ? "plus" : "minus" }, el("span", { class: "sign", "aria-hidden": "true" }, sign), el("span", { class: "hidden" }, said), el("code", null, text));
    const lines = [...shown.removed.map((text) => line("−", "removes ", text)), ...shown.added.map((text) => line("+", "adds ", text))];
    const none = shown.applies ? "It changes no line of the policy." : "An approval is recorded and not applied: nothing changes by it.";
    return el(
      "div",
      { class: "change" },
      el("h3", null, "What it would change", shown.edited && el("em", null, " as you edited it")),
      lines.length ? el("ul", { class: "diff", "aria-label": "Lines of the policy" }, lines) : el("p", null, none),
    );
  }

  effect() {
    const shown = this.shown;
    const said = [];
    const add = (kind, sign, text) => said.push(el("li", { class: kind }, el("span", { class: "sign", "aria-hidden": "true" }, sign), text));
    for (const host of shown.credentialed) add("bad", "!", `Reaches ${host}, where a credential is put in.`);
    for (const host of shown.sinks) add("bad", "!", `Opens ${host}, which takes in whatever is sent to it.`);
    for (const note of shown.notes) add("bad", "!", note);
    if (shown.requests) {
      add("", "·", `Of what was refused so far, it would have let through ${many(shown.requests, "request", "requests")} to ${many(shown.hosts, "host", "hosts")}.`);
    } else if (shown.applies && shown.state === "pending") add("", "·", "It would have let through nothing of what was refused so far.");
    return said.length ? el("div", { class: "effect" }, el("h3", null, "What it would do"), el("ul", null, said)) : null;
  }

  terms() {
    const shown = this.shown;
    const change = (scope, minutes) => this.act.terms({ scope, minutes }, this.text);
    const pick = (scope) =>
      el("label", { class: "pick" }, el("input", { type: "radio", name: "scope", value: scope, checked: scope === shown.scope, onchange: () => change(scope, Number(minutes.value)) }), " ", SCOPES[scope]);
    const choices = [10, 30, 60, 240, 1440];
    if (shown.scope === "time" && !choices.includes(shown.minutes)) choices.push(shown.minutes);
    const minutes = el(
      "select",
      { "aria-label": "How long", onchange: () => change("time", Number(minutes.value)) },
      choices.map((each) => el("option", { value: each, selected: each === (shown.scope === "time" ? shown.minutes : 30) }, each < 120 ? `${each} min` : `${each / 60} h`)),
    );
    return el("fieldset", { class: "terms" }, el("legend", null, "For how long"), pick("once"), el("span", null, pick("time"), minutes), pick("bottle"), pick("manifest"));
  }

  all() {
    this.boxes = [this.shown, ...this.alike].map((each, place) => {
      const box = el("input", { type: "checkbox", checked: true, disabled: place === 0 });
      box.item = each;
      return box;
    });
    return el(
      "fieldset",
      { class: "alike" },
      el("legend", null, "The same is asked, with the same effect, by"),
      this.boxes.map((box) => el("label", null, box, ` ${box.item.bottle} · ${box.item.agent} · ${box.item.run}`)),
    );
  }

  words() {
    const shown = this.shown;
    return el(
      "figure",
      { class: "words" },
      el("figcaption", null, "What the agent says. It may have been misled."),
      shown.words ? el("blockquote", { dir: "ltr" }, shown.words) : el("p", { class: "meta" }, "Nothing."),
    );
  }

  actions() {
    const what = this.shown.applies ? `Approve ${scopeText(this.shown.scope, this.shown.minutes)}` : "Approve (recorded only)";
    const approve = button(what, () => this.approve(), { class: "yes", "data-key": "a" });
    approve.needs = true;
    const edit = this.shown.applies && button("Edit…", () => this.edit(), { "data-key": "e" });
    const reject = button("Reject…", () => this.reject(), { class: "no", "data-key": "r" });
    this.buttons = [approve, edit, reject].filter(Boolean);
    this.bar = el("div", { class: "actions", role: "group", "aria-label": "Decide" }, this.buttons);
    return this.bar;
  }

  on() {
    return { scope: this.shown.scope, minutes: this.shown.minutes || 30 };
  }

  // What is decided: this one, and those alike that stay chosen.
  items() {
    return this.alike.length ? this.boxes.filter((box) => box.checked).map((box) => box.item) : [this.shown];
  }

  async approve() {
    const [on, text] = [this.on(), this.text];
    const approvals = this.items().map((item) => ({ id: item.id, digest: item.digest, on, text }));
    await this.decide(() => send("/api/approve", { approvals }));
  }

  async reject() {
    const answer = await rejectDialog(this.items());
    if (!answer) return;
    await this.decide(() => send("/api/reject", { ids: this.items().map((item) => item.id), ...answer }));
  }

  async edit() {
    const { id } = this.shown;
    const on = this.on();
    await editDialog(this.shown, (text) => this.look(id, on, text));
    this.turn(this.live && !this.stale);
  }

  async decide(work) {
    this.turn(false);
    this.done = true;
    const item = this.shown;
    let decided;
    try {
      ({ decided } = await work());
    } catch (error) {
      this.done = false;
      this.act.trouble(error);
      this.check(this.live);
      this.turn(this.live && !this.stale);
      return;
    }
    const bar = this.bar;
    const outcome = el("div", { class: "outcome", role: "status" });
    const failed = decided.some((each) => each.id === item.id && each.problem && each.state === "pending");
    const again = failed && button("Look again", () => this.act.again());
    fill(bar, outcome, again, button(this.act.nextLabel(item.id), () => this.act.next(item.id), { class: "next" }));
    bar.querySelector(".next").focus({ preventScroll: true });
    await this.act.follow(decided, (lines) => fill(outcome, lines));
  }
}
