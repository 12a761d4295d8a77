// Elements made by hand. Text becomes text nodes and nothing else: there is no way to markup in here.

export function el(tag, props, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function fill(place, ...children) {
  place.replaceChildren(...children.flat().filter(Boolean));
}

// A button does nothing in the first half second in a place: what was meant for something else must not hit it.
export const DEAD = 500;

export function button(label, act, props = {}) {
  const made = el("button", { type: "button", "aria-disabled": "true", ...props }, label);
  let alive = false;
  made.off = false;
  made.settle = () => {
    alive = false;
    made.setAttribute("aria-disabled", "true");
    clearTimeout(made.timer);
    made.timer = setTimeout(() => {
      alive = true;
      made.setAttribute("aria-disabled", String(made.off));
    }, DEAD);
  };
  made.turn = (on) => {
    if (made.off === !on) return;
    made.off = !on;
    if (on) made.settle();
    else made.setAttribute("aria-disabled", "true");
  };
  made.addEventListener("click", (event) => {
    if (alive && !made.off) act(event);
  });
  made.settle();
  return made;
}

export function many(count, one, more) {
  return `${count} ${count === 1 ? one : more}`;
}

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} days`;
}

export function now() {
  return Date.now() / 1000;
}

// Ages go on by themselves; only their text changes, never the place of anything.
export function age(since, suffix = " ago") {
  const made = el("time", { datetime: new Date(since * 1000).toISOString() });
  made.since = since;
  made.suffix = suffix;
  made.textContent = span(now() - since) + suffix;
  return made;
}

setInterval(() => {
  for (const each of document.querySelectorAll("time")) {
    if (each.since) each.textContent = span(now() - each.since) + each.suffix;
  }
}, 5000);

const STATES = {
  pending: "waits",
  approved: "approved, not in force yet",
  applied: "approved and in force",
  failed: "approved, but it could not be put in force",
  rejected: "rejected",
  expired: "expired without an answer",
  withdrawn: "withdrawn: its run has ended",
};

export function stateText(item) {
  if (item.state === "approved" && item.applies === false) return "approved: recorded, and not applied by anything yet";
  return STATES[item.state] || item.state;
}

export const SCOPES = {
  once: "once",
  time: "for a time",
  bottle: "while this bottle runs",
  manifest: "for good, in the bottle's file",
};

export function scopeText(scope, minutes) {
  return scope === "time" ? `for ${minutes} min` : SCOPES[scope];
}
