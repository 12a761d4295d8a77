// The line to the server: signing in, calls, and the feed of what waits.

const KEY = "inbox-key";
const SILENT = 25000;

export class Problem extends Error {
  constructor(status, said) {
    super(said.details ? `${said.problem}\n${said.details}` : said.problem);
    this.status = status;
  }
}

// Exchanges the one-time key in the address for a session. The key leaves the address and the history first.
export async function enter() {
  if (!location.hash.startsWith("#key=")) return sessionStorage.getItem(KEY) !== null;
  const key = location.hash.slice(5);
  history.replaceState(null, "", "/");
  const answer = await send("/session", { key });
  sessionStorage.setItem(KEY, answer.key);
  return true;
}

export async function leave() {
  await send("/api/leave", {});
  sessionStorage.removeItem(KEY);
}

export function forget() {
  sessionStorage.removeItem(KEY);
}

export async function send(path, body) {
  const headers = { "Content-Type": "application/json", "X-Inbox-Key": sessionStorage.getItem(KEY) || "" };
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  } catch {
    throw new Problem(0, { problem: "The inbox does not answer. Is it still running?" });
  }
  let said;
  try {
    said = await answer.json();
  } catch {
    said = { problem: `The inbox answered ${answer.status}.` };
  }
  if (!answer.ok) throw new Problem(answer.status, said);
  return said;
}

// Calls back with ("inbox" | "trouble", data) for every event, ("down", sentence) when the line breaks, ("out") when signed out.
export async function listen(back) {
  let pause = 250;
  for (;;) {
    try {
      await read((name, data) => {
        pause = 250;
        back(name, data);
      });
      back("down", "The inbox has ended the line.");
    } catch (error) {
      if (error.status === 401) return back("out");
      back("down", error.status === 429 ? error.message : "The inbox does not answer. Is it still running?");
    }
    await new Promise((done) => setTimeout(done, pause));
    pause = Math.min(pause * 2, 4000);
  }
}

async function read(back) {
  const stop = new AbortController();
  let watch = setTimeout(() => stop.abort(), SILENT);
  try {
    const headers = { "X-Inbox-Key": sessionStorage.getItem(KEY) || "" };
    const answer = await fetch("/api/events", { headers, signal: stop.signal });
    if (!answer.ok) throw new Problem(answer.status, await answer.json());
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let kept = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(watch);
      watch = setTimeout(() => stop.abort(), SILENT);
      const parts = (kept + value).split("\n\n");
      kept = parts.pop();
      for (const part of parts) {
        const found = /^event: (\w+)\ndata: (.*)$/.exec(part);
        if (found) back(found[1], JSON.parse(found[2]));
      }
    }
  } finally {
    clearTimeout(watch);
  }
}
