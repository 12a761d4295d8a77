// What is asked before a decision: a reason, other routes, whether all of these.

import { button, el, fill, many, scopeText, SCOPES } from "./dom.js";
import { send } from "./link.js";

// A modal dialog; gives what `close` was called with, undefined when it was left.
function modal(label, build) {
  return new Promise((done) => {
    const box = el("dialog", { "aria-label": label });
    const close = (value) => {
      box.answer = value;
      box.close();
    };
    box.addEventListener("close", () => {
      box.remove();
      done(box.answer);
    });
    document.body.append(box);
    build(box, close);
    box.showModal();
  });
}

export function rejectDialog(items) {
  return modal("Reject", (box, close) => {
    const reason = el("input", { type: "text", id: "reason", maxlength: 500, autocomplete: "off", autofocus: true });
    const again = el("input", { type: "checkbox" });
    const reject = button("Reject", () => close({ reason: reason.value, may_ask_again: again.checked }), { class: "no" });
    reason.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // else it presses what has the focus once the dialog is closed
      reject.click();
    });
    box.append(
      el("h2", null, items.length === 1 ? "Reject this" : `Reject these ${items.length}`),
      el("ul", { class: "these" }, items.map((item) => el("li", null, item.title, el("span", { class: "meta" }, ` ${item.bottle} · ${item.agent}`)))),
      el("label", { for: "reason" }, "Reason, for the agent"),
      reason,
      el("label", { class: "pick" }, again, " The agent may ask for this or the like again at once"),
      el("div", { class: "actions" }, reject, button("Leave it", () => close())),
    );
  });
}

// `compute` takes the text, has the server compute what it would change and shows that; it throws what is wrong with it.
export function editDialog(shown, compute) {
  return modal("Edit", (box, close) => {
    const text = el("textarea", { id: "routes", rows: 8, spellcheck: "false", autocapitalize: "off", autocomplete: "off", autofocus: true });
    text.value = shown.routes_text;
    const wrong = el("p", { class: "problem pre", role: "alert", hidden: true });
    const show = async () => {
      try {
        await compute(text.value);
        close();
      } catch (error) {
        wrong.hidden = false;
        wrong.textContent = error.message;
      }
    };
    box.append(
      el("h2", null, "Edit the routes"),
      el("label", { for: "routes" }, "As under egress: routes: in a bottle's file. Nothing is approved by this: you are shown what it would change."),
      text,
      wrong,
      el("div", { class: "actions" }, button("Show what it would change", show, { class: "yes" }), button("Leave it", () => close())),
    );
  });
}

// Shows every one of `ids` with what it would change, on terms for all of them, and gives the approvals that were agreed to.
export function batchDialog(ids, watch) {
  return modal("Approve several", (box, close) => {
    const list = el("ul", { class: "these full" });
    const notice = el("p", { class: "notice", role: "alert", hidden: true });
    const title = el("h2", null, "Approve");
    let shown = [];
    let marks = new Map();
    const terms = el("select", { id: "terms", onchange: () => look() }, el("option", { value: "" }, "each as offered"), Object.keys(SCOPES).map((scope) => el("option", { value: scope }, scopeText(scope, 30))));
    const approve = button("Approve", () => agree(), { class: "yes" });
    const again = button("Look again", () => look());
    const fits = () => shown.filter((item) => !item.problem && item.state === "pending");
    const agree = () =>
      close(fits().map((item) => ({ id: item.id, digest: item.digest, on: { scope: item.scope, minutes: item.minutes || 30 }, text: null })));
    const look = async () => {
      approve.turn(false);
      const now = new Map(ids.map((id) => [id, watch.mark(id)]));
      try {
        ({ shown } = await send("/api/look", { ids, on: terms.value ? { scope: terms.value, minutes: 30 } : null, text: null }));
      } catch (error) {
        notice.hidden = false;
        notice.textContent = error.message;
        return;
      }
      marks = now;
      notice.hidden = true;
      const left = shown.length - fits().length;
      title.textContent = left ? `Approve ${fits().length} of these ${shown.length}` : `Approve these ${shown.length}`;
      fill(list, shown.map(line));
      approve.textContent = `Approve ${fits().length}`;
      approve.settle();
      approve.turn(fits().length > 0);
    };
    const stop = watch.each(() => {
      if (![...marks].some(([id, mark]) => mark !== watch.mark(id))) return;
      approve.turn(false);
      notice.hidden = false;
      notice.textContent = "Some of these changed since you looked at them.";
    });
    box.addEventListener("close", stop);
    box.append(
      title,
      el("p", null, el("label", { for: "terms" }, "For how long: "), terms),
      notice,
      list,
      el("div", { class: "actions" }, approve, again, button("Leave it", () => close())),
    );
    approve.turn(false);
    look();
  });
}

function line(item) {
  const said = [];
  if (item.problem) said.push(`Left out: ${item.problem}`);
  if (item.state !== "pending") said.push("Left out: it does not wait any more.");
  item.credentialed.forEach((host) => said.push(`Reaches ${host}, where a credential is put in.`));
  item.sinks.forEach((host) => said.push(`Opens ${host}, which takes in whatever is sent to it.`));
  said.push(...item.notes);
  return el(
    "li",
    null,
    el("strong", null, item.title),
    el("span", { class: "meta" }, ` ${item.bottle} · ${item.agent} · ${item.applies ? scopeText(item.scope, item.minutes) : "recorded only"}`),
    el("ul", { class: "diff" }, item.removed.map((text) => el("li", { class: "minus" }, "− ", el("code", null, text))), item.added.map((text) => el("li", { class: "plus" }, "+ ", el("code", null, text)))),
    said.length > 0 && el("ul", { class: "effect" }, said.map((text) => el("li", { class: "bad pre" }, el("span", { class: "sign", "aria-hidden": "true" }, "!"), text))),
    item.requests > 0 && el("span", { class: "meta" }, `Would have let through ${many(item.requests, "refused request", "refused requests")}.`),
  );
}

export function confirmDialog(title, lines, label) {
  return modal(title, (box, close) => {
    box.append(
      el("h2", null, title),
      el("ul", { class: "these" }, lines.map((text) => el("li", null, el("code", null, text)))),
      el("div", { class: "actions" }, button(label, () => close(true), { class: "no" }), button("Leave it", () => close())),
    );
  });
}

const KEYS = [
  ["j k ↓ ↑", "down and up in the list"],
  ["Enter", "open what has the focus"],
  ["x", "choose it, for several at once"],
  ["a e r", "to Approve, Edit, Reject (Enter then does it)"],
  ["n", "to the next one, after a decision"],
  ["Esc", "back"],
];

export function keysDialog() {
  return modal("Keys", (box, close) => {
    box.append(
      el("h2", null, "Keys"),
      el("dl", { class: "keys" }, KEYS.map(([key, what]) => [el("dt", null, el("kbd", null, key)), el("dd", null, what)])),
      el("div", { class: "actions" }, button("Close", () => close())),
    );
  });
}
