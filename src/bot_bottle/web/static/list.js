// What waits, the oldest first. Asks of several bottles for the same are folded into one line.

import { age, DEAD, el, fill, many } from "./dom.js";

export class List {
  constructor(act) {
    this.act = act;
    this.chosen = new Set();
    this.lines = new Map();
    this.items = [];
    this.node = el("ol", { class: "list", "aria-label": "What waits, the oldest first" });
  }

  // `rows` as the server tells them. Lines keep their element, so that the focus stays where it is.
  update(rows) {
    const leaders = folded(rows);
    const places = new Map(this.items.map((item, place) => [item.id, place]));
    const lines = new Map();
    leaders.forEach((item, place) => {
      const line = this.lines.get(item.id) || this.line(item.id);
      if (line.said !== JSON.stringify(item)) this.write(line, item);
      if (places.get(item.id) !== place) line.settle();
      lines.set(item.id, line);
    });
    const held = document.activeElement;
    for (const [id, line] of this.lines) if (!lines.has(id)) line.remove();
    let before = this.node.firstChild;
    for (const line of lines.values()) {
      if (line === before) before = before.nextSibling;
      else this.node.insertBefore(line, before);
    }
    if (held && held !== document.activeElement && this.node.contains(held)) held.focus();
    this.lines = lines;
    this.items = leaders;
    const ids = new Set(leaders.map((item) => item.id));
    for (const id of this.chosen) if (!ids.has(id)) this.chosen.delete(id);
  }

  line(id) {
    const made = el("li");
    const guarded = (work) => (event) => {
      if (made.classList.contains("settling")) event.preventDefault();
      else work();
    };
    made.box = el("input", { type: "checkbox", onclick: guarded(() => this.choose(id, made.box.checked)) });
    made.open = el("button", { type: "button", class: "open", onclick: guarded(() => this.act.open(id)) });
    made.append(el("label", { class: "box" }, made.box), made.open);
    // A line that came to another place is dead for a moment, like a button.
    made.settle = () => {
      made.classList.add("settling");
      clearTimeout(made.timer);
      made.timer = setTimeout(() => made.classList.remove("settling"), DEAD);
    };
    return made;
  }

  write(line, item) {
    line.said = JSON.stringify(item);
    line.box.setAttribute("aria-label", `Choose: ${item.title}`);
    const places = item.others.length
      ? `${item.bottle} and ${many(item.others.length, "bottle", "bottles")} more`
      : item.bottle;
    fill(
      line.open,
      el("span", { class: "title" }, item.title),
      el("span", { class: "meta" }, places, " · ", item.agent, " · ", age(item.made)),
      badges(item),
    );
  }

  choose(id, on) {
    if (on) this.chosen.add(id);
    else this.chosen.delete(id);
    this.act.chosen();
  }

  chooseAll(on) {
    for (const [id, line] of this.lines) {
      line.box.checked = on;
      if (on) this.chosen.add(id);
    }
    if (!on) this.chosen.clear();
    this.act.chosen();
  }

  // The chosen ones with those folded into them.
  chosenIds() {
    return this.items.filter((item) => this.chosen.has(item.id)).flatMap((item) => [item.id, ...item.others]);
  }

  current(id) {
    for (const [name, line] of this.lines) {
      if (name === id) line.open.setAttribute("aria-current", "true");
      else line.open.removeAttribute("aria-current");
    }
  }

  move(step) {
    const all = [...this.lines.values()];
    const at = all.findIndex((line) => line.contains(document.activeElement));
    const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step))];
    if (next) next.open.focus();
  }

  mark() {
    const line = [...this.lines.values()].find((each) => each.contains(document.activeElement));
    if (line) line.box.click();
  }
}

function folded(rows) {
  const open = new Set(rows.map((item) => item.id));
  const inside = new Set();
  const leaders = [];
  for (const item of rows) {
    if (inside.has(item.id)) continue;
    const others = item.alike.filter((id) => open.has(id) && !inside.has(id));
    others.forEach((id) => inside.add(id));
    leaders.push({ ...item, others });
  }
  return leaders;
}

function badges(item) {
  const said = [];
  if (item.blocked) said.push(["bad", "can't be approved as it is"]);
  if (item.credentialed) said.push(["bad", "credential"]);
  if (item.sinks) said.push(["bad", "takes in data"]);
  if (item.kind === "request" || item.kind === "secret") said.push(["warn", "waits at the door"]);
  if (item.repeats) said.push(["", `asked ${item.repeats + 1} times`]);
  return said.length && el("span", { class: "badges" }, said.map(([kind, text]) => el("span", { class: `badge ${kind}` }, text)));
}
