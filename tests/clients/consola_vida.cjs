// A new installation, from the first page to signing out, on a screen of 320 px. See consola.cjs.
const assert = require("node:assert");
const { spawn, spawnSync } = require("node:child_process");
const os = require("node:os");
const path = require("node:path");

// Names that would do something, were they ever read as markup.
const EMPRESA = `<img src=x onerror="document.title='pwned'">`;
const NOMBRE = `Cámara <script>document.title='pwned'</script>`;
const CLAVE = "una clave larga";

module.exports = async ({ api, browser, ca, fs, mqtts, open, server }) => {
  const visit = await open(browser, `${server}/`);
  const { page, wrong, says, gone, text, count, click, fill, errorOf, fits, session } = visit;
  const token = async () => (await session()).access_token;
  const port = mqtts.split(":").at(-1);
  // The line that the page shows, on the port that this server has.
  const run = (line) => spawnSync("sh", ["-c", line.replace("-p 8883", `-p ${port}`).replace("ca.pem", ca)], { encoding: "utf8", timeout: 20_000 });
  const publish = (line, payload) => run(line.replace(/-m ".*"$/, `-m '${payload}'`));

  // The first empresa: what is wrong is said at its field.
  await says("h1", "Entrar a la consola");
  await fits("entrada");
  await click("Registrar la primera empresa");
  await says("h1", "Registrar la empresa");
  const account = { nombre: "Ana <b>", apellido: "Paz", email: "ana@fundo.pe", "empresa.razon_social": EMPRESA };
  await fill({ ...account, "empresa.ruc": "123", password: "corta" });
  await click("Registrar", "form");
  await says(".error", "11 dígitos");
  assert.deepEqual((await errorOf("empresa.ruc"))[0], "true");
  assert.match((await errorOf("password"))[1], /10 caracteres/);
  assert.deepEqual(await errorOf("email"), [null, ""]);
  await fits("registro");
  await fill({ "empresa.ruc": "20123456789", password: CLAVE });
  await click("Registrar", "form");
  await says("h1", "Sensores");
  await says("header", EMPRESA);
  await says(".vivo", "En vivo");
  await says(".vacio", "Todavía no hay sensores");
  // From here on nothing is loaded anew.
  await page.evaluate(() => { window.same = true; });

  // A sensor, and the line that tries it.
  await click("Agregar sensor");
  await fill({ nombre: NOMBRE, device_id: "no vale", tipo: "camara_fria" }, "dialog form");
  await fits("alta");
  await click("Agregar", "dialog");
  await says("dialog .error", "letras, dígitos, punto");
  await fill({ device_id: "camara-1", ubicacion_sensor: "Almacén" }, "dialog form");
  await click("Agregar", "dialog");
  await says("dialog", "no se vuelve a mostrar");
  await says("dialog .llegada", "Esperando la primera lectura");
  const first = await text("dialog .token");
  const line = await text("dialog .linea");
  assert.match(first, /^[\w-]{40,}$/);
  const host = new URL(server).hostname;
  assert.ok(line.startsWith(`mosquitto_pub --cafile ca.pem -h ${host} -p 8883 `) && line.includes(` -P ${first} `), line);
  // The cmd of Windows knows no other quotation, and hands this one on as it is.
  assert.ok(!line.includes("'"), line);
  // It is not lost by a key that closes dialogs, however often: a browser asks once.
  await page.keyboard.press("Escape");
  await page.keyboard.press("Escape");
  assert.equal(await text("dialog .token"), first);
  await click("Copiar", "dialog");
  await says(".avisos", "Copiado");
  // A page without TLS, from another machine, has no clipboard.
  await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
  await gone(".avisos");
  await (await page.$$("dialog .campo button"))[1].click();
  await says(".avisos", "Copiado");
  assert.equal(await page.evaluate(() => getSelection().toString()), first);
  await fits("credenciales");
  // Why it does not come is said while one waits.
  publish(line.replace(first, "otro-token"), '{"temperatura": 1}');
  await says("dialog .llegada", "token incorrecto");
  const tried = run(line);
  assert.equal(tried.status, 0, tried.stderr);
  await says("dialog .llegada", "Llegó una lectura");
  await click("Ya lo guardé", "dialog");
  await gone("dialog");
  await says(".tarjeta", "21,5 °C");
  assert.equal(await text(".tarjeta h2"), NOMBRE);

  // A threshold is crossed: the alert comes by itself.
  const bounds = await api("PUT", "/umbrales", await token(), { temperatura: { min: 0, max: 30 } });
  assert.equal(bounds.status, 200, JSON.stringify(bounds.body));
  assert.equal(publish(line, '{"temperatura": 41.5, "bateria": 77}').status, 0);
  await says(".tarjeta", "41,5 °C");
  await says(".tarjeta", "Batería 77 %");
  await says(".tarjeta .pastilla", "Alerta");
  await says(".contador", "1");
  await fits("sensores");
  await click("Alertas", "header");
  await says(".alerta", "marca 41,5 °C");
  await says(".alerta .valores", "41,5 °C");
  await says(".alerta a", NOMBRE);
  await click("Marcar como vista", ".alerta");
  await says(".alerta", "Vista");
  await fits("alertas");
  const before = await page.$eval(".alerta", (e) => e.id);
  await click("Resolver", ".alerta");
  await fill({ notas: "Se cerró la puerta." }, "dialog form");
  await click("Resolver", "dialog");
  await says(".avisos", "el problema continúa");
  assert.equal(await page.evaluate(() => document.activeElement.innerText), "Alertas", "the button is gone, and the focus is not");
  await page.waitForFunction((id) => !document.getElementById(id) && document.querySelector(".alerta"), {}, before);
  const resolved = (await api("GET", "/alertas?estado=resuelta", await token())).body;
  assert.deepEqual([resolved[0].notas, resolved[0].vista, `alerta-${resolved[0].id_alerta}`], ["Se cerró la puerta.", true, before]);
  // Back inside: now it is resolved, and no other comes.
  assert.equal(publish(line, '{"temperatura": 20}').status, 0);
  await click("Resolver", ".alerta");
  await click("Resolver", "dialog");
  await says(".avisos", "Alerta resuelta");
  await says(".vacio", "No hay alertas abiertas");
  await gone(".contador");

  // What is refused, and why; what was said until now.
  publish(line, '{"temperatura": 500, "<b>": 1}');
  await click("Sensores", "header");
  await click(NOMBRE, ".tarjeta");
  await says("h1", NOMBRE);
  await says(".rechazos", "Valor físicamente imposible");
  await says(".rechazos", "Nombre de variable no permitido");
  await says(".rechazos code", "fuera_de_rango");
  await says("figcaption", "de 20 °C a 41,5 °C");
  await says(".origen", "De las lecturas. Puntos: 3.");
  await says("tbody tr", "41,5 °C");
  assert.equal(await count(".grafico circle.punto"), 3);
  await page.focus(".lienzo");
  await page.keyboard.press("Home");
  await says(".lectura", "Temperatura: 21,5 °C");
  await page.keyboard.press("ArrowRight");
  await says(".lectura", "Temperatura: 41,5 °C");
  await click("1 año", ".historia");
  await says("figcaption", "en 1 año");
  await page.select("#variable", "bateria");
  await says("figcaption", "Batería en 1 año: de 77 % a 77 %");
  await fits("sensor");
  await csv(page, fs, click);

  // A reading that comes shows without a reload.
  assert.equal(publish(line, '{"temperatura": 19.25}').status, 0);
  await says(".valores", "19,25 °C");

  // Who is connected; cut off; another token.
  const listens = () => spawn("mosquitto_sub", ["--cafile", ca, "-h", host, "-p", port, "-V", "5", "-i", "camara-1", "-u", "camara-1", "-P", first, "-t", "sensores/camara-1/comandos"]);
  const device = listens();
  try {
    await click("Conexiones", "header");
    await says(".tarjeta .pastilla", "Conectado");
    await says(".tarjeta", "tls · MQTT 5.0");
    await says(".tarjeta", NOMBRE);
    const [connected] = (await api("GET", "/mqtt/clientes?conectado=true", await token())).body;
    await fits("conexiones");
    await click("Desconectar", ".tarjeta");
    await says("dialog", "¿Desconectar?");
    assert.equal(await page.evaluate(() => document.activeElement.innerText), "Cancelar");
    await click("Cancelar", "dialog");
    await gone("dialog");
    assert.equal((await api("GET", "/mqtt/clientes?conectado=true", await token())).body[0].id, connected.id);
    await click("Desconectar", ".tarjeta");
    await click("Desconectar", "dialog");
    await says(".avisos", "Se desconectó");
    const now = (await api("GET", "/mqtt/clientes?conectado=true", await token())).body;
    assert.ok(now.every((c) => c.id !== connected.id), JSON.stringify(now));
    await click("Sensores", "header");
    await click(NOMBRE, ".tarjeta");
    await click("Nuevas credenciales");
    await says("dialog", "deja de servir en el acto");
    await click("Crear token nuevo", "dialog");
    await says("dialog", "no se vuelve a mostrar");
  } finally {
    device.kill();
  }
  const second = await text("dialog .token");
  assert.ok(second !== first && /^[\w-]{40,}$/.test(second), second);
  assert.notEqual(publish(line, '{"temperatura": 1}').status, 0, "the old token");
  assert.equal(publish(line.replace(first, second), '{"temperatura": 22}').status, 0);
  await says("dialog .llegada", "Llegó una lectura");
  await click("Ya lo guardé", "dialog");

  // Out: the token is good no more, and nothing stays.
  assert.deepEqual(await page.evaluate(() => [window.same, document.title]), [true, `${NOMBRE} · Alertrace`], "it was not loaded anew, and no name ran");
  assert.deepEqual(await page.$$eval("#consola img", (all) => all.map((e) => e.getAttribute("src"))), ["/consola/icono.svg"]);
  const old = await token();
  await click("Salir");
  await says("h1", "Entrar a la consola");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  assert.equal((await api("GET", "/auth/me", old)).status, 401);
  assert.deepEqual(wrong.sort(), ["422 /api/v1/auth/register", "422 /api/v1/sensores"]);

  // That the listener hears a violation, and that the policy is one.
  await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "document.title = 'pwned'";
    document.body.append(script);
  });
  for (let tries = 0; wrong.length < 4 && tries < 50; tries += 1) await new Promise((good) => setTimeout(good, 100));
  assert.ok(wrong.some((w) => w.includes("policy: script-src-elem inline")), wrong.join("\n"));
  assert.notEqual(await page.title(), "pwned");
};

// The readings as a file: fetched with the token, and saved.
async function csv(page, fs, click) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "consola-"));
  const session = await page.createCDPSession();
  await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: dir, browserContextId: page.browserContext().id });
  await click("Descargar lecturas");
  let saved = [];
  for (let tries = 0; saved.length === 0 && tries < 100; tries += 1) {
    await new Promise((good) => setTimeout(good, 100));
    saved = fs.readdirSync(dir).filter((name) => name.endsWith(".csv"));
  }
  const lines = fs.readFileSync(path.join(dir, saved[0]), "utf8").trim().split("\r\n");
  assert.equal(lines[0].split(",")[0], "timestamp");
  assert.ok(lines[0].includes("temperatura") && lines.length === 4, lines.join("\n"));
  assert.match(saved[0], /camara-1/);
  fs.rmSync(dir, { recursive: true });
}
