// The other two views: grants that hold, and what was decided.

import { age, button, el, fill, many, now, scopeText, span, stateText } from "./dom.js";
import { confirmDialog } from "./dialogs.js";
import { send } from "./link.js";

export class Grants {
  constructor(act) {
    this.act = act;
    this.node = el("section", { class: "page", "aria-label": "Grants" });
    this.said = "";
  }

  update(grants) {
    if (this.said === JSON.stringify(grants)) return;
    this.said = JSON.stringify(grants);
    const empty = el("p", { class: "empty" }, "No grant holds. What you approve stands here, until it ends or you withdraw it.");
    const held = this.node.contains(document.activeElement) && document.activeElement.dataset.id;
    fill(this.node, el("h2", null, "Grants that hold"), grants.length ? el("ul", { class: "cards" }, grants.map((each) => this.card(each))) : empty);
    if (held) [...this.node.querySelectorAll("button")].find((each) => each.dataset.id === held)?.focus();
  }

  card(grant) {
    const ends = grant.until ? ` · ends in ${span(grant.until - now())}` : "";
    const used = grant.used ? `used ${many(grant.used, "time", "times")}, last ` : "not used yet";
    return el(
      "li",
      null,
      el("ul", { class: "diff" }, grant.lines.map((line) => el("li", null, el("code", null, line)))),
      el("p", { class: "meta" }, `${grant.run} · ${scopeText(grant.scope, Math.round((grant.until - grant.since) / 60))}${ends} · since `, age(grant.since), ` · ${used}`, grant.used ? age(grant.used_at) : null),
      button("Withdraw…", () => this.withdraw(grant), { class: "no", "data-id": grant.id, "aria-label": `Withdraw ${grant.lines.join(", ")} of ${grant.run}` }),
    );
  }

  async withdraw(grant) {
    if (!(await confirmDialog(`Withdraw this from ${grant.run}?`, grant.lines, "Withdraw"))) return;
    try {
      await send("/api/withdraw", { id: grant.id });
      this.act.say("Withdrawn.");
    } catch (error) {
      this.act.trouble(error);
    }
  }
}

export class History {
  constructor(act) {
    this.act = act;
    this.node = el("section", { class: "page", "aria-label": "History" });
  }

  async update() {
    let decided;
    try {
      ({ decided } = await send("/api/history", {}));
    } catch (error) {
      this.act.trouble(error);
      return;
    }
    if (this.said === JSON.stringify(decided)) return;
    this.said = JSON.stringify(decided);
    const held = this.node.contains(document.activeElement) && document.activeElement.dataset.id;
    const line = (item) =>
      el(
        "li",
        { class: item.state },
        el("button", { type: "button", class: "open", "data-id": item.id, onclick: () => this.act.open(item.id) }, el("span", { class: "title" }, item.title), el("span", { class: "meta" }, `${item.bottle} · ${item.agent} · `, age(item.decided || item.ended || item.made)), el("span", { class: "state" }, stateText(item), item.reason ? `: ${item.reason}` : "")),
      );
    fill(this.node, el("h2", null, "Decided"), decided.length ? el("ol", { class: "list" }, decided.map(line)) : el("p", { class: "empty" }, "Nothing was decided yet."));
    if (held) [...this.node.querySelectorAll("button.open")].find((each) => each.dataset.id === held)?.focus();
  }
}
