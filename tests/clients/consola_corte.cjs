// What does not go as it should: the network, a token that ended, a second factor; and English. See consola.cjs.
const assert = require("node:assert");
const crypto = require("node:crypto");
const net = require("node:net");

// A line to the server that can be cut, and can die without a word: nothing is closed, and nothing gets through.
function line(server) {
  const { hostname, port } = new URL(server);
  const sockets = new Set();
  let dead = false;
  const gate = net.createServer((near) => {
    const far = net.connect(port, hostname);
    for (const [a, b] of [[near, far], [far, near]]) {
      sockets.add(a);
      if (!dead) a.pipe(b);
      a.on("error", () => b.destroy());
      a.on("close", () => { sockets.delete(a); b.destroy(); });
    }
  });
  const listen = (at) => new Promise((good) => gate.listen(at, "127.0.0.1", good));
  return {
    async lay(at = 0) { dead = false; await listen(at); return gate.address().port; },
    die() { dead = true; for (const s of sockets) { s.unpipe(); s.pause(); } },
    cut: () => new Promise((good) => { gate.close(good); sockets.forEach((s) => s.destroy()); }),
  };
}

// RFC 6238, as an app on a telephone does it.
function totp(secret) {
  const bits = [...secret].map((c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const mac = crypto.createHmac("sha1", key).update(counter).digest();
  const at = mac[19] & 15;
  return String((mac.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

module.exports = async ({ api, browser, email, open, password, server }) => {
  const signIn = async () => (await api("POST", "/auth/login", null, { email, password })).body.access_token;
  const admin = await signIn();
  const retired = await api("POST", "/sensores", admin, { device_id: "s0", nombre: "Antiguo", tipo: "clima" });
  const made = await api("POST", "/sensores", admin, { device_id: "s1", nombre: "Norte", tipo: "clima" });
  const say = async (value, device_id = "s1", token = made.body.credenciales.token) => {
    const headers = { Authorization: `Device ${device_id}:${token}` };
    const answer = await fetch(`${server}/api/v1/sensores/data`, { method: "POST", headers, body: JSON.stringify({ temperatura: value }) });
    assert.equal(answer.status, 201);
  };

  // Cut, and laid again: what was said meanwhile is there, and what is said then comes by itself.
  const wire = line(server);
  const port = await wire.lay();
  const visit = await open(browser, `http://127.0.0.1:${port}/`, { hurry: 30 });
  await visit.signIn(email, "no es esta");
  await visit.says(".general", "Correo o contraseña incorrectos");
  await visit.fill({ password });
  await visit.click("Entrar", "form");
  await visit.says(".vivo", "En vivo");
  await say(11);
  await visit.says(".tarjeta", "11 °C");
  await wire.cut();
  await visit.says(".vivo", "Sin conexión en vivo");
  await visit.says(".banda", "El servidor no responde");
  // What it knew stays there, however often it asks in vain.
  await say(12);
  for (let times = 0; times < 3; times += 1) {
    await new Promise((good) => {
      const failed = (r) => { if (r.url().includes("/sensores?")) { visit.page.off("requestfailed", failed); good(); } };
      visit.page.on("requestfailed", failed);
    });
  }
  await visit.page.evaluate(() => new Promise((good) => requestAnimationFrame(() => requestAnimationFrame(good))));
  assert.match(await visit.text("#sensor-" + made.body.sensor.id_sensor), /11 °C/);
  await wire.lay(port);
  await visit.says(".vivo", "En vivo");
  await visit.says(".tarjeta", "12 °C");
  await say(13);
  await visit.says(".tarjeta", "13 °C");
  await visit.gone(".banda");

  // A line that dies says nothing of it: that is found out, and nobody waits for it to sign out.
  const leaves = await open(browser, `http://127.0.0.1:${port}/`);
  await leaves.signIn(email, password);
  await leaves.says(".vivo", "En vivo");
  wire.die();
  await leaves.click("Salir");
  await leaves.says("h1", "Entrar a la consola");
  assert.equal(await leaves.page.evaluate(() => sessionStorage.length), 0);
  await visit.says(".vivo", "Sin conexión en vivo");
  await visit.says(".banda", "El servidor no responde");
  await say(14);
  await wire.cut();
  await wire.lay(port);
  await visit.says(".vivo", "En vivo");
  await visit.says(".tarjeta", "14 °C");
  await visit.gone(".banda");

  // A page that stays open hears of what no event tells; the focus stays where it was, below a card that goes.
  const focused = () => visit.page.evaluate(() => document.activeElement.innerText);
  await visit.page.focus(`#sensor-${made.body.sensor.id_sensor} a`);
  assert.equal((await api("DELETE", `/sensores/${retired.body.sensor.id_sensor}`, admin)).status, 204);
  await visit.gone(".tarjeta", "Antiguo");
  assert.equal(await focused(), "Norte");
  assert.equal((await api("PATCH", `/sensores/${made.body.sensor.id_sensor}`, admin, { nombre: "Sur" })).status, 200);
  await visit.says(".tarjeta h2", "Sur");
  assert.equal(await focused(), "Sur");
  await visit.says(".vivo", "En vivo");
  await visit.says(".tarjeta", "14 °C");

  // Whoever reads the curve by keyboard goes on where they were when it is drawn anew.
  await visit.click("Sur", ".tarjeta");
  await visit.says("figcaption", "a 14 °C");
  await visit.page.focus(".lienzo");
  await visit.page.keyboard.press("Home");
  await visit.says(".lectura", "11 °C");
  await say(15);
  await visit.says("figcaption", "a 15 °C");
  await visit.says(".lectura", "11 °C");
  await visit.page.keyboard.press("ArrowRight");
  await visit.says(".lectura", "12 °C");
  await visit.page.goto(`http://127.0.0.1:${port}/#/sensores`);

  // Where no WebSocket gets through, a new sensor's first reading is seen all the same.
  const deaf = await open(browser, `${server}/`, { hurry: 30 });
  await deaf.page.evaluateOnNewDocument(() => {
    window.WebSocket = class extends EventTarget {
      static OPEN = 1;
      static CLOSED = 3;
      readyState = 3;
      constructor() { super(); setTimeout(() => this.dispatchEvent(new Event("close"))); }
      close() {}
    };
  });
  await deaf.page.reload();
  await deaf.signIn(email, password);
  await deaf.click("Agregar sensor");
  await deaf.fill({ nombre: "Este", device_id: "s2", tipo: "clima" }, "dialog form");
  await deaf.click("Agregar", "dialog");
  await deaf.says("dialog .llegada", "Esperando la primera lectura");
  await say(21, "s2", await deaf.text("dialog .token"));
  await deaf.says("dialog .llegada", "Llegó una lectura");
  assert.deepEqual(deaf.wrong, []);

  // A token that is good no more is renewed, before it is used and after it was refused.
  const change = (fields) => visit.page.evaluate((f) => {
    const kept = JSON.parse(sessionStorage.getItem("alertrace.sesion"));
    sessionStorage.setItem("alertrace.sesion", JSON.stringify({ ...kept, ...f }));
  }, fields);
  for (const fields of [{ access_token: "no" }, { renovar: 0, access_token: "no" }]) {
    const before = await visit.session();
    await change(fields);
    await visit.page.reload();
    await visit.says(".vivo", "En vivo");
    const after = await visit.session();
    assert.ok(after.refresh_token !== before.refresh_token && after.access_token !== "no");
  }
  // One that cannot be renewed is told.
  await change({ access_token: "no", refresh_token: "no" });
  await visit.page.reload();
  await visit.says(".aviso", "Su sesión terminó");
  assert.deepEqual(visit.wrong.filter((w) => !/^401 |net::ERR_(CONNECTION|EMPTY)|WebSocket connection/.test(w)), []);

  // The second factor is asked for where there is one.
  const again = await signIn();
  const { secreto } = (await api("POST", "/auth/totp", again)).body;
  const confirmed = await api("POST", "/auth/totp/confirmar", again, { codigo: totp(secreto) });
  assert.equal(confirmed.status, 200, JSON.stringify(confirmed.body));
  await visit.page.goto(`${server}/`);
  await visit.says("h1", "Entrar");
  assert.equal(await visit.page.$eval("[name=codigo]", (e) => e.checkVisibility()), false);
  await visit.signIn(email, password);
  await visit.says(".general", "verificación en dos pasos");
  await visit.fill({ codigo: "000000" });
  await visit.click("Entrar", "form");
  await visit.says(".general", "no es correcto");
  await visit.fill({ codigo: confirmed.body.codigos_recuperacion[0] });
  await visit.click("Entrar", "form");
  await visit.says("h1", "Sensores");

  // English, for whoever puts it first; and what the API says too. By keyboard alone.
  const english = await open(browser, `${server}/`, { languages: ["fr", "en-GB", "es"] });
  await english.says("h1", "Sign in to the console");
  assert.equal(await english.page.$eval("html", (e) => e.lang), "en");
  await english.page.keyboard.type(email);
  await english.page.keyboard.press("Tab");
  await english.page.keyboard.type("no es esta");
  await english.page.keyboard.press("Tab");
  await english.page.keyboard.press("Enter");
  await english.says(".general", "Wrong e-mail or password");
  const outline = await english.page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, "solid", "the focus is seen");
  const german = await open(browser, `${server}/`, { languages: ["de"] });
  await german.says("h1", "Entrar a la consola");
  await wire.cut();
};
