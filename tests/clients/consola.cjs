// The console in headless Chromium, as an installer uses it.
// usage: node consola.cjs vida|roles|corte http://SERVER MQTTS ca.pem EMAIL PASSWORD
//   vida   a new installation: registers, adds a sensor, publishes with the line shown, resolves, signs out
//   roles  what operador, worker and supervisor are shown; many sensors; a server that does not acknowledge
//   corte  the network goes and comes back; tokens are renewed; the second factor; English
// SHOTS=directory keeps pictures of what was seen.
const assert = require("node:assert");
const fs = require("node:fs");
const puppeteer = require("puppeteer-core");

const [what, server, mqtts, ca, email, password] = process.argv.slice(2);
const PATIENCE = 20_000;

// A page, and everything that went wrong on it: errors of scripts, of the console, of the policy. What it does every
// quarter of a minute or less often it does `hurry` times as often.
async function open(browser, url, { languages = ["es-PE", "es"], width = 320, height = 640, hurry = 1 } = {}) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const wrong = [];
  page.on("pageerror", (e) => wrong.push(`error: ${e}`));
  page.on("console", (m) => {
    if (!["error", "warn"].includes(m.type())) return;
    // A request that is refused is an error of the console too: it is named by what it was.
    const refused = /status of (\d+)/.exec(m.text());
    wrong.push(refused ? `${refused[1]} ${new URL(m.location().url).pathname}` : `${m.type()}: ${m.text()}`);
  });
  await page.evaluateOnNewDocument((preferred, faster) => {
    for (const name of ["setInterval", "setTimeout"]) {
      const real = window[name];
      window[name] = (fn, ms) => real(fn, ms >= 15_000 ? ms / faster : ms);
    }
    Object.defineProperty(navigator, "languages", { get: () => preferred });
    addEventListener("securitypolicyviolation", (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI}`));
  }, languages, hurry);
  await page.setViewport({ width, height });
  await page.goto(url, { waitUntil: hurry === 1 ? "networkidle0" : "load" });
  return { page, wrong, ...tools(page) };
}

function tools(page) {
  let shot = 0;
  const self = {
    // Waits until `selector` is there and says `text`.
    async says(selector, text) {
      const found = (s, t) => [...document.querySelectorAll(s)].some((e) => e.innerText.includes(t) && e.checkVisibility());
      await page.waitForFunction(found, {}, selector, text).catch(async () => {
        const there = await page.$$eval(selector, (all) => all.map((e) => e.innerText));
        assert.fail(`${selector} never said ${JSON.stringify(text)}: ${JSON.stringify(there)}; ${await page.$eval("body", (b) => b.innerText)}`);
      });
    },
    async gone(selector, text = "") {
      const none = (s, t) => ![...document.querySelectorAll(s)].some((e) => e.innerText.includes(t) && e.checkVisibility());
      await page.waitForFunction(none, {}, selector, text).catch(() => assert.fail(`${selector} ${text} stays`));
    },
    text: (selector) => page.$eval(selector, (e) => e.innerText),
    count: (selector) => page.$$eval(selector, (all) => all.length),
    // Clicks what says so, as a person finds it.
    async click(text, within = "body") {
      await self.says(`${within} button, ${within} a`, text);
      const handles = await page.$$(`${within} button, ${within} a`);
      for (const handle of handles) {
        if ((await handle.evaluate((e) => e.checkVisibility() && e.innerText)) && (await handle.evaluate((e) => e.innerText)).includes(text)) return handle.click();
      }
      return assert.fail(`nothing to click says ${text}`);
    },
    // Writes into fields by their names, in the place of what is there.
    async fill(fields, within = "form") {
      for (const [name, value] of Object.entries(fields)) {
        const field = await page.waitForSelector(`${within} [name="${name}"]`, { visible: true });
        await field.evaluate((e) => { e.value = ""; });
        await field.type(value);
      }
    },
    errorOf: (name) => page.$eval(`[name="${name}"]`, (e) => [e.getAttribute("aria-invalid"), e.closest(".campo").querySelector(".error").innerText]),
    async signIn(who, secret) {
      await self.fill({ email: who, password: secret });
      await self.click("Entrar", "form");
    },
    // Nothing is wider than the screen; every field and button has a name.
    async fits(name) {
      shot += 1;
      if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${what}-${shot}-${name}.png`, fullPage: true });
      const [wide, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(wide <= screen, `${name}: ${wide} px on ${screen}`);
      const nameless = await page.$$eval("input, select, textarea, button, a", (all) => all.filter((e) => e.checkVisibility() &&
        !(e.innerText || e.labels?.length || e.getAttribute("aria-label"))).map((e) => e.outerHTML));
      assert.deepEqual(nameless, [], name);
    },
    session: () => page.evaluate(() => JSON.parse(sessionStorage.getItem("alertrace.sesion"))),
  };
  return self;
}

async function api(method, path, token, body) {
  const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(`${server}/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
  return { status: answer.status, body: answer.status === 204 ? null : await answer.json() };
}

(async () => {
  const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
  try {
    const own = { api, browser, ca, email, fs, mqtts, open, password, server };
    await require(`./consola_${what}.cjs`)(own);
  } finally {
    await browser.close();
  }
})().catch((e) => { console.error(e); process.exit(1); });
