// Headless Chromium as people use it. usage: node browser.cjs docs|front http://SERVER
//   docs   signs in with Swagger UI's Authorize and tries an operation
//   front  a page of http://localhost:3000 registers and signs in, in both shapes
const assert = require("node:assert");
const http = require("node:http");
const puppeteer = require("puppeteer-core");

const [what, server] = process.argv.slice(2);
const EMAIL = "admin@fundo.pe";
const PASSWORD = "una clave larga";

async function docs(page) {
  await page.goto(`${server}/docs/`, { waitUntil: "networkidle0" });
  await page.waitForSelector(".opblock");
  const operations = await page.$$eval(".opblock", (all) => all.length);
  assert.ok(operations > 30, `${operations} operations are shown`);
  await page.click(".auth-wrapper .authorize");
  await page.waitForSelector("#oauth_username");
  await page.type("#oauth_username", EMAIL);
  await page.type("#oauth_password", PASSWORD);
  await page.click(".auth-btn-wrapper .authorize");
  await page.waitForFunction(() => [...document.querySelectorAll(".auth-container")].some((c) => c.innerText.includes("Authorized")));
  await page.click(".auth-btn-wrapper .btn-done");
  // Try it out.
  await page.click("#operations-auth-auth_me .opblock-summary-control");
  await page.waitForSelector("#operations-auth-auth_me .try-out__btn");
  await page.click("#operations-auth-auth_me .try-out__btn");
  await page.waitForSelector("#operations-auth-auth_me .execute");
  await page.click("#operations-auth-auth_me .execute");
  await page.waitForSelector("#operations-auth-auth_me .live-responses-table .response-col_status");
  const answer = await page.$eval("#operations-auth-auth_me .live-responses-table", (e) => e.innerText);
  assert.ok(answer.includes("200") && answer.includes(EMAIL), answer);
}

// What the front end does, in its page: nothing here but what `fetch` of a browser sends by itself.
async function inPage(api, password) {
  const call = async (method, path, body, token) => {
    const headers = { "Content-Type": "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const options = { method, headers, credentials: "include", body: body && JSON.stringify(body) };
    const answer = await fetch(api + path, options);
    return { status: answer.status, total: answer.headers.get("x-total-count"), etag: answer.headers.get("etag"), body: await answer.json() };
  };
  const shapes = [
    { email: "anidada@x.pe", password, nombre: "Ana", apellido: "Paz", dni: "12345678",
      empresa: { ruc: "20111111111", razon_social: "Anidada", email: "e@x.pe" } },
    { email: "plana@x.pe", password, user_type: "empresa", nombre_empresa: "Plana", ruc: "20222222222", telefono: "999888777" },
    { email: "persona@x.pe", password, user_type: "trabajador", nombres: "Luz", apellidos: "Rey", dni: "87654321", telefono: "999" },
  ];
  const seen = [];
  for (const shape of shapes) {
    const registered = await call("POST", "/auth/register", shape);
    const byEmail = await call("POST", "/auth/login", { email: shape.email, password, user_type: shape.user_type });
    const byName = await call("POST", "/auth/login", { username: shape.email, password });
    const token = byEmail.body.access_token;
    const me = await call("GET", "/auth/me", undefined, token);
    const list = await call("GET", "/sensores", undefined, token);
    const patch = await call("PATCH", "/empresas/me", { telefono: "1" }, token);
    seen.push({ registered, byEmail, byName, me, list, patch });
  }
  const wrong = await call("POST", "/auth/login", { email: shapes[0].email, password: "no es esta" });
  return { seen, wrong };
}

async function front(page) {
  const site = http.createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<!doctype html><title>front</title>"));
  const port = 3000;
  const listen = () => new Promise((good, bad) => site.once("error", bad).listen(port, "127.0.0.1", good));
  // The origin is what is asked about: while the port is another's there is nothing to ask.
  for (let tries = 0; ; tries += 1) {
    try { await listen(); break; } catch (e) { if (tries === 60) throw e; }
    await new Promise((good) => setTimeout(good, 500));
  }
  await page.goto(`http://localhost:${port}/`);
  const { seen, wrong } = await page.evaluate(inPage, `${server}/api/v1`, PASSWORD);
  const types = ["empresa", "empresa", "trabajador"];
  seen.forEach(({ registered, byEmail, byName, me, list, patch }, n) => {
    assert.equal(registered.status, 201, JSON.stringify(registered));
    assert.equal(registered.body.user_type, types[n]);
    assert.deepEqual(Object.keys(registered.body).sort(), ["email", "message", "user_id", "user_type"]);
    for (const login of [byEmail, byName]) {
      assert.equal(login.status, 200, JSON.stringify(login));
      assert.equal(login.body.token_type, "bearer");
      assert.equal(login.body.user_id, registered.body.user_id);
      assert.ok(login.body.refresh_token && login.body.expires_in > 0);
    }
    assert.equal(me.body.email, registered.body.email);
    const empresa = types[n] === "empresa";
    assert.equal(list.status, empresa ? 200 : 403);
    assert.equal(patch.status, empresa ? 200 : 403);
    // A page of another origin reads what is exposed to it.
    if (empresa) assert.deepEqual([list.total, typeof list.etag], ["0", "string"]);
  });
  // Chromium asked first, as it does for JSON and for Authorization: the server has counted it.
  const counted = await (await fetch(`${server}/metrics`)).text();
  for (const path of ["/auth/register", "/auth/login", "/auth/me", "/sensores", "/empresas/me"]) {
    const asked = counted.split("\n").some((line) => line.includes('method="OPTIONS"') && line.includes(`route="/api/v1${path}"`));
    assert.ok(asked, `no preflight for ${path}`);
  }
  assert.equal(wrong.status, 401);
  assert.equal(wrong.body.code, "invalid_credentials");
  // And a page that is not the front end is told nothing.
  await page.goto(`http://127.0.0.1:${port}/`);
  const stranger = await page.evaluate((url) => fetch(url).then(() => "answered", (e) => e.name), `${server}/api/v1/auth/me`);
  assert.equal(stranger, "TypeError");
  site.close();
}

(async () => {
  const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
  const page = await browser.newPage();
  const wrong = [];
  page.on("pageerror", (e) => wrong.push(String(e)));
  page.on("console", (m) => { if (/Content Security Policy/.test(m.text())) wrong.push(m.text()); });
  try {
    await { docs, front }[what](page);
    assert.deepEqual(wrong, []);
  } finally {
    await browser.close();
  }
})().catch((e) => { console.error(e); process.exit(1); });
