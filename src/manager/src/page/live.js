"use strict";
// Keeps the page as the replica is now: asks for the part that changes, and takes over only what did, so that focus,
// selection and scroll stay where they are.
(() => {
  const every = 1500, longest = 15000, patience = 5000;
  const pulse = document.getElementById("pulse"), announce = document.getElementById("announce");
  let fresh = Date.now(), wait = every, lost = "", timer = 0, asking = false;

  const say = (text) => { announce.textContent = text; };
  const seconds = (ms) => Math.max(0, Math.round(ms / 1000)) + " s";

  // What a node is recognised by among its siblings.
  const key = (node) => node.nodeType === 1 ? node.id || node.dataset.key || "" : "";

  const attributes = (now, next) => {
    for (const { name } of [...now.attributes]) if (!next.hasAttribute(name)) now.removeAttribute(name);
    for (const { name, value } of next.attributes) if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  };

  const morph = (now, next) => {
    attributes(now, next);
    const keyed = new Map();
    for (const child of now.children) if (key(child)) keyed.set(key(child), child);
    let at = now.firstChild;
    for (const want of [...next.childNodes]) {
      const name = key(want);
      let have = name ? keyed.get(name) : at;
      if (have && (have.nodeName !== want.nodeName || (!name && key(have)))) have = null;
      if (!have) {
        now.insertBefore(want, at);
        if (name && want.nodeType === 1) want.classList.add("new");
        continue;
      }
      if (have === at) at = at.nextSibling;
      else now.insertBefore(have, at);
      if (have.nodeType === 1) morph(have, want);
      else if (have.nodeValue !== want.nodeValue) have.nodeValue = want.nodeValue;
    }
    while (at) { const after = at.nextSibling; at.remove(); at = after; }
  };

  const take = (html) => {
    const next = new DOMParser().parseFromString(html, "text/html").getElementById("live");
    if (!next) throw new Error("the answer is not a status page");
    const now = document.getElementById("live");
    const before = now.dataset.leader, leader = next.dataset.leader;
    morph(now, next);
    document.title = next.dataset.title;
    if (lost) say("The connection is back.");
    if (before !== leader) say(leader ? "The leader is now " + leader + "." : "Nobody leads now.");
  };

  const show = () => {
    document.body.classList.toggle("lost", lost !== "");
    const old = seconds(Date.now() - fresh);
    pulse.textContent = lost
      ? lost + " What is shown is " + old + " old."
      : "Live. As of " + new Date(fresh).toLocaleTimeString() + ".";
  };

  const why = (error) => error.name === "AbortError" || error instanceof TypeError
    ? "The replica does not answer." : error.message;

  const ask = async () => {
    if (asking || document.hidden) return;
    asking = true;
    const give_up = new AbortController(), limit = setTimeout(() => give_up.abort(), patience);
    try {
      const answer = await fetch("?part=live", { signal: give_up.signal, cache: "no-store", credentials: "same-origin" });
      if (answer.status === 401 || answer.status === 403) throw new Error("You may not read this page any more (" + answer.status + ").");
      if (!answer.ok) throw new Error("The replica answers " + answer.status + ".");
      take(await answer.text());
      fresh = Date.now();
      wait = every;
      lost = "";
    } catch (error) {
      const text = why(error);
      if (lost !== text) say("Connection lost. " + text);
      lost = text;
      wait = Math.min(wait * 2, longest);
    } finally {
      clearTimeout(limit);
      asking = false;
      clearTimeout(timer);
      timer = setTimeout(ask, wait);
      show();
    }
  };

  // A page that nobody looks at asks for nothing; one that is looked at again asks at once.
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  setInterval(() => { if (lost) show(); }, 1000);
  timer = setTimeout(ask, every);
})();
