// What each role is shown, a hundred sensors and some, and a server that does not acknowledge. See consola.cjs.
const assert = require("node:assert");
const { spawnSync } = require("node:child_process");

module.exports = async ({ api, browser, ca, email, mqtts, open, password, server }) => {
  const signIn = async (who) => (await api("POST", "/auth/login", null, { email: who, password })).body.access_token;
  const admin = await signIn(email);
  const sensors = [];
  for (let n = 0; n < 103; n += 1) {
    const made = await api("POST", "/sensores", admin, { device_id: `s-${n}`, nombre: `Sensor ${String(n).padStart(3, "0")}`, tipo: "clima" });
    assert.equal(made.status, 201, JSON.stringify(made.body));
    sensors.push({ ...made.body.sensor, token: made.body.credenciales.token });
  }
  const say = (device_id, token, value) => fetch(`${server}/api/v1/sensores/data`, { method: "POST", body: JSON.stringify({ temperatura: value }), headers: { Authorization: `Device ${device_id}:${token}` } });
  const people = {};
  for (const rol of ["worker", "supervisor"]) {
    const made = await api("POST", "/trabajadores", admin, { email: `${rol}@fundo.pe`, password, nombre: rol, apellido: "X", rol });
    assert.equal(made.status, 201, JSON.stringify(made.body));
    people[rol] = made.body;
  }
  const assigned = await api("POST", "/asignaciones", admin, { id_trabajador: people.worker.id_trabajador, id_sensor: sensors[7].id_sensor });
  assert.equal(assigned.status, 201, JSON.stringify(assigned.body));

  // The administrator: pages of a hundred, and a search over all of them.
  const chief = await open(browser, `${server}/`, { width: 1280, height: 800 });
  await chief.signIn(email, password);
  await chief.says(".resumen", "Sensores: 103 ");
  assert.equal(await chief.count(".tarjeta"), 100);
  await chief.says(".paginador", "Página 1 de 2 · 103 en total");
  // The button stays under whoever is about to press it while sensors speak.
  const next = await chief.page.$(".paginador button:last-child");
  await next.focus();
  assert.equal((await say("s-0", sensors[0].token, 18.5)).status, 201);
  await chief.says(".tarjeta", "18,5 °C");
  assert.ok(await next.evaluate((e) => document.activeElement === e), "the pager was replaced");
  await chief.click("Siguiente", ".paginador");
  await chief.says(".paginador", "Página 2 de 2");
  assert.deepEqual(await chief.page.$$eval(".tarjeta h2", (all) => all.map((e) => e.innerText)), ["Sensor 100", "Sensor 101", "Sensor 102"]);
  await chief.page.type("#buscar", "s-42");
  await chief.says(".resumen", "Sensores: 1 ");
  assert.equal(await chief.text(".tarjeta h2"), "Sensor 042");
  await chief.fits("admin");
  // Assigned or registered elsewhere meanwhile: it comes with what it says.
  const other = await api("POST", "/sensores", admin, { device_id: "otro", nombre: "Otro s-42", tipo: "clima" });
  assert.equal((await say("otro", other.body.credenciales.token, 20)).status, 201);
  await chief.says(".tarjeta", "Otro s-42");

  // A worker: the assigned sensor, and no button that would be refused.
  const worker = await open(browser, `${server}/#/conexiones`);
  await worker.signIn("worker@fundo.pe", password);
  await worker.says(".resumen", "Sensores: 1 ");
  assert.equal(await worker.text("header nav"), "Sensores\nAlertas");
  assert.equal(await worker.count(".titulo button"), 0);
  await worker.click("Sensor 007", ".tarjeta");
  await worker.says(".lugar", "No hay lecturas en este periodo");
  assert.deepEqual(await worker.page.$$eval("section h2", (all) => all.map((e) => e.innerText)), ["Ahora", "Historial"]);
  await worker.fits("worker");
  // Somebody else's is answered as by the API, in words.
  await worker.page.goto(`${server}/#/sensores/${sensors[8].id_sensor}`);
  await worker.says("[role=alert]", "No existe");
  // Cut off at once.
  const left = await api("DELETE", `/trabajadores/${people.worker.id_trabajador}`, admin);
  assert.equal(left.status, 204);
  await worker.says(".aviso", "Su sesión terminó");

  const supervisor = await open(browser, `${server}/`);
  await supervisor.signIn("supervisor@fundo.pe", password);
  await supervisor.says(".resumen", "Sensores: 104 ");
  assert.equal(await supervisor.text("header nav"), "Sensores\nAlertas");
  await supervisor.click("Sensor 000", ".tarjeta");
  await supervisor.says(".vacio", "Ninguno: todo lo que envió se guardó");
  assert.ok(!(await supervisor.text("main")).includes("Credenciales"));

  // The operador: connections and the server, and no data.
  const operator = await open(browser, `${server}/`);
  await operator.signIn("op@fundo.pe", password);
  await operator.says("h1", "Conexiones");
  await operator.says(".vacio", "Nadie se ha conectado todavía");
  assert.equal(await operator.text("header nav"), "Conexiones\nServidor");
  // By its name alone: its sensor is a page that is not theirs.
  const [host, port] = [new URL(server).hostname, mqtts.split(":").at(-1)];
  const device = spawnSync("mosquitto_pub", ["--cafile", ca, "-h", host, "-p", port, "-V", "5", "-q", "1", "-i", "s-1", "-u", "s-1", "-P", sensors[1].token, "-t", "sensores/s-1/data", "-m", '{"temperatura": 1}'], { encoding: "utf8", timeout: 20_000 });
  assert.equal(device.status, 0, device.stderr);
  await operator.says(".tarjeta h2", "s-1");
  assert.equal(await operator.count(".tarjeta a"), 0);
  await operator.click("Servidor", "header");
  await operator.says(".pastilla", "Guarda y confirma lecturas");
  const { version } = await (await fetch(`${server}/health`)).json();
  await operator.says(".datos", version);
  await operator.fits("operador");

  // It does not acknowledge: everybody is told why, also who is not signed in; and what somebody should look at.
  const refused = { detail: "La base de datos no responde: <b>disco</b>", code: "store_unavailable" };
  const warned = { status: "ready", version, warnings: [{ code: "disk_budget", used_bytes: 9e9, max_bytes: 1e10 }] };
  for (const [status, body, visits] of [[503, refused, [operator, await open(browser, `${server}/`)]], [200, warned, [operator]]]) {
    for (const visit of visits) {
      await visit.page.setRequestInterception(true);
      visit.page.removeAllListeners("request");
      visit.page.on("request", (r) => (new URL(r.url()).pathname === "/ready" ? r.respond({ status, contentType: "application/json", body: JSON.stringify(body) }) : r.continue()));
      await visit.page.reload();
      if (status === 503) await visit.says(".banda", `El servidor no confirma lecturas. ${refused.detail}`);
      else await visit.says(".avisos-servidor", "Usa 9 GB de 10 GB");
    }
  }
  await operator.gone(".banda");

  assert.deepEqual(chief.wrong, []);
  assert.deepEqual(supervisor.wrong, []);
  assert.deepEqual(worker.wrong.filter((w) => !/^(404|401) /.test(w)), []);
  assert.ok(worker.wrong.includes(`404 /api/v1/sensores/${sensors[8].id_sensor}`), worker.wrong.join("\n"));
  assert.deepEqual([...new Set(operator.wrong)], ["503 /ready"]);
};
