// Looks at the status page as people do: with eyes, ears, a keyboard, a phone, and without JavaScript.
//
// Run by tests/it/page.rs, which keeps three replicas alive and kills the leader when it is asked to. It is given a
// JSON object on the command line, says one JSON object a line on its standard output, and reads lines from its input.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";

// { folder, url, certificate, key, leader, others: [name], addons: {good, bad}, screenshots }
const given = JSON.parse(process.argv[2]);
const require = createRequire(given.folder + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const long = 60000;

const say = (what) => console.log(JSON.stringify(what));
const step = (name) => say({ step: name });
const ask = async (what) => {
  say({ ask: what });
  const { value, done } = await lines.next();
  if (done) throw new Error("nobody answered");
  return value;
};

const browser = await chromium.launch({
  executablePath: given.folder + "/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-color-profile=srgb"],
});
const origin = new URL(given.url).origin;
const asked = [], errors = [];
const visit = async (options = {}, signed = true) => {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true,
    viewport: { width: 1280, height: 900 },
    clientCertificates: signed ? [{ origin, certPath: given.certificate, keyPath: given.key }] : undefined,
    ...options,
  });
  context.setDefaultTimeout(long);
  context.on("request", (request) => asked.push(request.url()));
  const page = await context.newPage();
  page.on("console", (message) => {
    // A request that a loaded machine did not answer in time is told on the page, and is no fault of it.
    const unanswered = message.text().startsWith("Failed to load resource: net::");
    if (["error", "warning"].includes(message.type()) && !unanswered) errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  return page;
};

const accessible = async (page, where) => {
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
  }));
  const told = found.violations.map(({ id, nodes }) => id + ": " + nodes.map((node) => node.html + " " + node.failureSummary).join(" | "));
  assert.deepEqual(told, [], "axe finds nothing " + where);
  assert.ok(found.passes.length > 20, "axe looked " + where);
};

const seen = async (page, name, media) => {
  if (!given.screenshots) return;
  if (media) await page.emulateMedia(media);
  await page.waitForFunction(() => !document.body.classList.contains("lost"));
  await page.evaluate(() => { document.activeElement?.blur(); window.scrollTo(0, 0); });
  await page.screenshot({ path: `${given.screenshots}/status-${name}.png`, scale: "css" });
};

const sections = ["What is wrong", "Masters", "History", "Controllers", "Queues", "Addons", "Clouds", "Refusals", "Caches"];

try {
  step("who may not is not let in");
  const stranger = await visit({}, false);
  assert.equal((await stranger.goto(given.url)).status(), 403);
  await stranger.context().close();
  errors.length = 0;

  step("content");
  const page = await visit();
  const answer = await page.goto(given.url);
  assert.equal(answer.status(), 200);
  const policy = answer.headers()["content-security-policy"];
  assert.match(policy, /^default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe/);
  for (const name of sections) await page.getByRole("region", { name, exact: true }).waitFor();
  const row = (table, name) => page.getByRole("table", { name: table }).getByRole("row").filter({ hasText: name });
  await row("Replicas that stand for", given.leader).filter({ hasText: "leads" }).waitFor();
  for (const name of given.others) await row("Replicas that stand for", name).filter({ hasText: "stands by" }).waitFor();
  await row("Who led when", given.leader).filter({ hasText: "leads now" }).first().waitFor();
  await page.getByText(given.leader + " has the deck").waitFor();
  await row("Controllers on this replica", "endpointslice-controller").filter({ hasText: "standby" }).waitFor();
  await row("Work queues", "endpointslice-controller").waitFor();
  await row("Caches of what", "services").filter({ hasText: "watching" }).first().waitFor();
  await row("Addons", given.addons.good).filter({ hasText: "ready" }).waitFor();
  await row("Addons", given.addons.bad).filter({ hasText: "degraded" }).waitFor();
  const wrong = page.getByRole("region", { name: "What is wrong" });
  await wrong.getByRole("listitem").filter({ hasText: given.addons.bad }).waitFor();
  assert.match(await wrong.getByRole("link").first().getAttribute("href"), /runbooks\/Quarterdeck/);
  await page.getByText(/^Live\. As of/).waitFor();
  assert.match(await page.title(), /wrong – quarterdeck on /);

  step("accessibility tree");
  const tree = await page.locator("body").ariaSnapshot();
  for (const part of ["- banner:", "- navigation \"Sections\":", "- main:", "- contentinfo:", "heading \"quarterdeck\" [level=1]",
    "table \"Replicas that stand for this election\"", "columnheader \"Leads since\"", "rowheader \"" + given.leader]) {
    assert.ok(tree.includes(part), part + " in:\n" + tree.slice(0, 4000));
  }
  await accessible(page, "in light");
  await seen(page, "light", { colorScheme: "light" });

  step("dark");
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.emulateMedia({ colorScheme: "light" });
  const light = await ground();
  await page.emulateMedia({ colorScheme: "dark" });
  assert.notEqual(await ground(), light);
  await accessible(page, "in dark");
  await seen(page, "dark", { colorScheme: "dark" });
  await page.emulateMedia({ colorScheme: "light" });

  step("keyboard");
  await page.keyboard.press("Tab");
  const focused = () => page.evaluate(() => document.activeElement.textContent);
  assert.equal(await focused(), "Skip to what is wrong");
  assert.ok(await page.locator(".skip").evaluate((link) => link.getBoundingClientRect().left >= 0), "the focused link is seen");
  for (const name of sections) {
    await page.keyboard.press("Tab");
    assert.equal(await focused(), name);
  }
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none", "focus is seen");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => location.hash === "#caches" && scrollY > 0);

  step("phone");
  const phone = await visit({ viewport: { width: 360, height: 780 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true });
  await phone.goto(given.url);
  const wide = await phone.evaluate(() => [document.documentElement.scrollWidth, innerWidth,
    [...document.querySelectorAll("main *")].filter((part) => part.getBoundingClientRect().right > innerWidth + 1
      && getComputedStyle(part).position !== "absolute" && !part.closest("thead")).map((part) => part.outerHTML.slice(0, 200))]);
  assert.ok(wide[0] <= wide[1], "nothing is wider than the phone: " + JSON.stringify(wide));
  assert.equal(await phone.getByRole("table", { name: "Replicas that stand for" }).getByRole("row").count() >= 4, true, "tables stay tables");
  await accessible(phone, "on a phone");
  await seen(phone, "phone", { colorScheme: "light" });
  await phone.context().close();

  step("without JavaScript");
  const plain = await visit({ javaScriptEnabled: false });
  await plain.goto(given.url);
  await plain.getByRole("table", { name: "Replicas that stand for" }).getByText(given.leader).first().waitFor();
  assert.equal(await plain.locator("noscript meta[http-equiv=refresh], head meta[http-equiv=refresh]").count() > 0, true);
  await plain.context().close();

  step("live through a failover");
  const link = page.getByRole("navigation").getByRole("link", { name: "Controllers" });
  await link.focus();
  await page.evaluate(() => {
    window.loadedOnce = true;
    window.heard = [];
    const announce = document.getElementById("announce");
    new MutationObserver(() => window.heard.push(announce.textContent)).observe(announce, { childList: true, characterData: true, subtree: true });
  });
  const scrolled = await page.evaluate(() => { scrollTo(0, 300); return scrollY; });
  assert.equal(await ask("kill the leader"), "done");
  await page.waitForFunction((old) => {
    const now = document.getElementById("live").dataset.leader;
    return now && now !== old;
  }, given.leader);
  const leader = await page.evaluate(() => document.getElementById("live").dataset.leader);
  assert.ok(given.others.includes(leader), leader);
  await page.getByText(leader + " has the deck").waitFor();
  await row("Who led when", leader).filter({ hasText: "leads now" }).first().waitFor();
  await row("Who led when", given.leader).filter({ hasText: "not heard of" }).first().waitFor();
  assert.ok(await page.evaluate(() => window.loadedOnce), "it was not loaded again");
  assert.ok((await page.evaluate(() => window.heard)).some((text) => text === `The leader is now ${leader}.`), "it was announced");
  assert.equal(await focused(), "Controllers", "focus stayed");
  assert.equal(await page.evaluate(() => scrollY), scrolled, "the page stayed where it was");
  assert.deepEqual(errors, [], "no console errors");

  step("a lost connection is told");
  await page.context().setOffline(true);
  await page.waitForFunction(() => document.body.classList.contains("lost"));
  await page.getByText(/^The replica does not answer\. What is shown is \d+ s old\.$/).waitFor();
  await accessible(page, "while the connection is lost");
  await page.context().setOffline(false);
  await page.waitForFunction(() => !document.body.classList.contains("lost"));
  await page.getByText(/^Live\. As of/).waitFor();

  step("the dead master is told as gone");
  await row("Replicas that stand for", given.leader).filter({ hasText: "gone" }).waitFor({ timeout: 2 * long });
  await wrong.getByRole("listitem").filter({ hasText: given.leader }).filter({ hasText: "not heard of" }).waitFor();

  const elsewhere = asked.filter((url) => new URL(url).origin !== origin && !url.startsWith("data:"));
  assert.deepEqual(elsewhere, [], "nothing is asked of anybody else");
  say({ done: true });
} finally {
  await browser.close();
}
process.exit(0);
