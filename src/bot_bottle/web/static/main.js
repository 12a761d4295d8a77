// The page: what is shown where, and what the keys do.

import { button, el, fill, many, stateText } from "./dom.js";
import { batchDialog, keysDialog, rejectDialog } from "./dialogs.js";
import { Detail } from "./detail.js";
import { enter, forget, leave, listen, send } from "./link.js";
import { List } from "./list.js";
import { Grants, History } from "./others.js";

const $ = (id) => document.getElementById(id);
const rows = new Map();
const watchers = new Set();
let inbox = { waiting: [], grants: [] };
let view = "waiting";
let live = false;
let known = null;
let over = false;

const watch = {
  mark: (id) => rows.get(id)?.mark,
  each: (back) => {
    watchers.add(back);
    return () => watchers.delete(back);
  },
};

const list = new List({ open: (id) => go(id), chosen: () => drawBar() });
const detail = new Detail({
  mark: watch.mark,
  others: (id) => list.items.find((item) => item.id === id)?.others || [],
  back,
  again: () => show(detail.shown.id, detail.on(), detail.text),
  terms: (on, text) => show(detail.shown.id, on, text),
  trouble,
  nextLabel: (id) => (after(id) ? "Next" : "Back to the list"),
  next: (id) => {
    const next = after(id);
    if (next) go(next.id, true);
    else back();
  },
  follow,
  drawn: (shown) => list.current(shown.id),
});
const grants = new Grants({ trouble, say });
const past = new History({ trouble, open: (id) => go(id) });

const all = el("input", { type: "checkbox", id: "all", onclick: () => list.chooseAll(all.checked) });
const approveSome = button("Approve…", () => approveChosen(), { class: "yes" });
const rejectSome = button("Reject…", () => rejectChosen(), { class: "no" });
const some = el("span", { role: "status" });
const bar = el("div", { class: "bar" }, el("label", { for: "all" }, all, " All"), some, el("span", { class: "both" }, approveSome, rejectSome));
const empty = el("p", { class: "empty" }, el("strong", null, "Nothing waits."), el("br"), "What an agent asks for shows here at once.");
const waiting = el("section", { class: "waiting", "aria-label": "Waiting" }, bar, empty, list.node);
const nothing = el("p", { class: "empty wide" }, "Choose one on the left to see what it would change.");

function trouble(error) {
  const text = typeof error === "string" ? error : error.message;
  if (error.status === 401) return signedOut("This browser is not signed in any more.");
  const close = el("button", { type: "button", class: "quiet", onclick: () => trouble("") }, "Close");
  fill($("trouble"), text && el("span", { class: "pre" }, text), text && close);
  $("trouble").hidden = !text;
  $("trouble").classList.remove("good");
}

function say(text) {
  $("said").textContent = text;
}

// Where we are stands in the address: the browser's own Back works, on a phone above all.
function go(id, instead = false) {
  if (instead) history.replaceState({ id }, "", `#/${id}`);
  else if (location.hash !== `#/${id}`) history.pushState({ id }, "", `#/${id}`);
  show(id);
}

function back() {
  if (history.state?.id) return history.back();
  history.replaceState(null, "", "/");
  return route();
}

function route() {
  if (location.hash.startsWith("#key=")) return location.reload();
  const id = location.hash.startsWith("#/") ? decodeURIComponent(location.hash.slice(2)) : "";
  if (id) return show(id);
  const was = detail.shown?.id;
  detail.close();
  list.current("");
  draw();
  list.lines.get(was)?.open.focus();
}

async function show(id, on = null, text = null) {
  const held = on && document.activeElement.closest(".terms") && document.activeElement.tagName;
  try {
    await detail.look(id, on, text);
    draw();
    if (held) detail.node.querySelector(held === "SELECT" ? ".terms select" : ".terms :checked")?.focus();
    if (on === null) detail.node.querySelector("h2").focus({ preventScroll: true });
    if (on === null) detail.node.scrollTop = 0;
    if (on === null && narrow()) scrollTo(0, 0);
  } catch (error) {
    if (detail.shown?.id === id) detail.draw();
    else history.replaceState(null, "", "/");
    trouble(error);
    detail.check(live);
  }
}

function narrow() {
  return matchMedia("(max-width: 52rem)").matches;
}

function after(id) {
  const at = list.items.findIndex((item) => item.id === id);
  const rest = list.items.filter((item) => item.id !== id && !detail.items().some((done) => done.id === item.id));
  return rest.find((item) => list.items.indexOf(item) > at) || rest[0];
}

function draw() {
  const open = Boolean(detail.shown);
  document.body.classList.toggle("open", open);
  document.body.dataset.view = view;
  document.body.classList.toggle("none", view === "waiting" && !open && !list.items.length);
  const left = { waiting, grants: grants.node, history: past.node }[view];
  const right = open ? detail.node : view === "waiting" && list.items.length ? nothing : null;
  const wanted = [left, right].filter(Boolean);
  const there = [...$("main").children];
  if (wanted.length !== there.length || wanted.some((node, place) => node !== there[place])) fill($("main"), ...wanted);
  for (const each of $("views").children) {
    const name = each.dataset.view;
    each.setAttribute("aria-pressed", String(name === view));
    const count = { waiting: list.items.length, grants: inbox.grants.length }[name];
    each.textContent = name[0].toUpperCase() + name.slice(1) + (count ? ` ${count}` : "");
  }
  document.title = `${list.items.length ? `(${list.items.length}) ` : ""}bot-bottle inbox`;
  empty.hidden = list.items.length > 0;
  drawBar();
}

function drawBar() {
  const count = list.chosenIds().length;
  bar.hidden = list.items.length < 2 && !count;
  all.checked = list.items.length > 0 && list.chosen.size === list.items.length;
  some.textContent = count ? `${count} chosen` : "";
  approveSome.parentNode.hidden = !count;
  approveSome.turn(live && count > 0);
  rejectSome.turn(live && count > 0);
}

async function approveChosen() {
  const approvals = await batchDialog(list.chosenIds(), watch);
  if (approvals) await decideSome(() => send("/api/approve", { approvals }));
}

async function rejectChosen() {
  const items = list.chosenIds().map((id) => rows.get(id)).filter(Boolean);
  const answer = await rejectDialog(items);
  if (answer) await decideSome(() => send("/api/reject", { ids: items.map((item) => item.id), ...answer }));
}

async function decideSome(work) {
  try {
    const { decided } = await work();
    list.chooseAll(false);
    await follow(decided, (lines) => {
      fill($("trouble"), el("span", null, lines), el("button", { type: "button", class: "quiet", onclick: () => trouble("") }, "Close"));
      $("trouble").hidden = false;
      $("trouble").classList.toggle("good", !decided.some((each) => each.problem));
    });
  } catch (error) {
    trouble(error);
  }
}

// Says what became of decisions, until all of them are enforced or refused, or half a minute has gone.
async function follow(decided, tell) {
  const problems = decided.filter((each) => each.problem);
  const states = new Map(decided.filter((each) => !each.problem).map((each) => [each.id, each]));
  const until = Date.now() + 30000;
  for (let pause = 100; ; pause = Math.min(pause * 2, 1000)) {
    tell(summary(problems, [...states.values()]));
    const open = [...states.values()].filter((each) => each.state === "approved" && each.applies !== false);
    if (!open.length || Date.now() > until) return;
    await new Promise((done) => setTimeout(done, pause));
    try {
      const { shown } = await send("/api/look", { ids: open.map((each) => each.id) });
      for (const each of shown) states.set(each.id, each);
    } catch {
      return;
    }
  }
}

function summary(problems, states) {
  const counts = new Map();
  for (const each of states) {
    const text = stateText(each) + (each.state === "failed" && each.reason ? `: ${each.reason}` : "");
    counts.set(text, (counts.get(text) || 0) + 1);
  }
  const one = states.length + problems.length === 1;
  const lines = [...counts].map(([text, count]) => (one ? `${text[0].toUpperCase()}${text.slice(1)}.` : `${count}: ${text}.`));
  lines.push(...problems.map((each) => `Not decided: ${each.problem}`));
  say(lines.join(" "));
  return lines.map((text) => el("p", { class: "pre" }, text));
}

function onNews(name, data) {
  if (over) return undefined;
  if (name === "out") return signedOut("This browser is not signed in.");
  live = name === "inbox";
  if (name === "inbox") onInbox(data);
  const line = { inbox: "Live", trouble: "Not live", down: "Not connected" }[name];
  $("line").textContent = line;
  $("line").className = name;
  if (name === "trouble") trouble(data.problem);
  if (name === "down") trouble(`${data} What you see may be old, and nothing can be decided.`);
  if (name === "inbox" && known !== "inbox") trouble("");
  known = name;
  detail.check(live);
  draw();
  return undefined;
}

function onInbox(data) {
  const fresh = rows.size ? data.waiting.filter((item) => !rows.has(item.id)) : [];
  inbox = data;
  rows.clear();
  for (const item of data.waiting) rows.set(item.id, item);
  list.update(data.waiting);
  list.current(detail.shown?.id);
  grants.update(data.grants);
  if (view === "history") past.update();
  if (fresh.length) say(`${many(fresh.length, "more waits", "more wait")}: ${fresh[0].title}`);
  for (const back of watchers) back();
}

function signedOut(text) {
  over = true;
  forget();
  live = false;
  for (const id of ["views", "leave", "keys"]) $(id).hidden = true;
  $("line").textContent = $("line").className = "";
  $("trouble").hidden = true;
  document.querySelectorAll("dialog").forEach((box) => box.close());
  document.body.classList.remove("open");
  document.title = "bot-bottle inbox";
  fill($("main"), el("div", { class: "empty out" }, el("h2", null, text), el("p", null, "Open a link that bot-bottle inbox --web prints: each is good for one browser, once. Press Enter where it runs for a new one.")));
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog")) return;
  const typing = event.target.matches("input:not([type=checkbox], [type=radio]), textarea, select");
  if (event.key === "Escape" && detail.shown) return back();
  if (typing || (event.target.matches("[type=radio]") && event.key.startsWith("Arrow"))) return;
  const press = { a: "[data-key=a]", e: "[data-key=e]", r: "[data-key=r]", n: ".next" }[event.key];
  if (press) detail.node.querySelector(press)?.focus();
  else if (event.key === "j" || event.key === "ArrowDown") list.move(1);
  else if (event.key === "k" || event.key === "ArrowUp") list.move(-1);
  else if (event.key === "x") list.mark();
  else if (event.key === "?") keysDialog();
  else return;
  event.preventDefault();
}

async function start() {
  try {
    if (!(await enter())) return signedOut("This browser is not signed in.");
  } catch (error) {
    return signedOut(error.message);
  }
  for (const id of ["views", "leave", "keys"]) $(id).hidden = false;
  $("views").addEventListener("click", (event) => {
    if (!event.target.dataset.view) return;
    view = event.target.dataset.view;
    history.pushState(null, "", "/");
    if (view === "history") past.update();
    route();
  });
  $("leave").addEventListener("click", () => {
    over = true; // what comes of it on the feed is no news
    leave().then(() => signedOut("Signed out."), (error) => {
      over = false;
      trouble(error);
    });
  });
  $("keys").addEventListener("click", keysDialog);
  addEventListener("popstate", route);
  document.addEventListener("keydown", onKey);
  draw();
  route();
  return listen(onNews);
}

start();
