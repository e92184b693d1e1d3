// Who is connected by MQTT, who was, and why somebody is not: where an installer looks when a device does not show up.

import { pide, todas } from "./api.js";
import { avisa, boton, confirma, envejece, h, hace, intenta, pagina, sincroniza } from "./dom.js";
import { bytes, entero } from "./formato.js";
import { planta } from "./planta.js";
import { explicacion } from "./porques.js";
import { puede } from "./sesion.js";
import { t } from "./textos.js";

const SONDEO = 5_000;
const TAMANO = 100;

const nombre = (c) => c.device_id ?? c.client_id ?? c.user_id ?? "—";

const desconecta = intenta(async (c, despues) => {
  if (!await confirma(t("desconectar_titulo"), t("desconectar_texto", { nombre: nombre(c) }), t("desconectar"))) return;
  await pide("DELETE", `/mqtt/clientes/${c.id}`);
  avisa(t("desconectado"));
  await despues();
});

function dato(etiqueta, valor) {
  return valor !== null && valor !== undefined && h("div", null, h("dt", null, etiqueta), h("dd", null, valor));
}

function error({ motivo, momento, ip, veces }) {
  const explicado = explicacion(motivo);
  return h("div", { class: "porque" },
    h("p", null, h("b", null, explicado)),
    explicado !== motivo && h("p", { class: "menor" }, h("code", null, motivo)),
    h("p", { class: "menor" }, hace(momento), ` · ${ip}`, veces > 1 && ` · ${t("veces", { veces: entero(veces) })}`));
}

function tarjeta(c, recarga) {
  const estado = c.conectado ? "online" : "offline";
  return h("li", { class: "tarjeta" },
    h("div", { class: "cabeza" },
      h("h2", null, c.id_sensor && !puede.operar() ? h("a", { href: `#/sensores/${c.id_sensor}` }, nombre(c)) : nombre(c)),
      h("span", { class: `pastilla ${estado}` }, t(`conexion.${estado}`))),
    h("p", { class: "menor" }, t(`cliente.${c.tipo}`), planta.sensores.has(c.id_sensor) && ` · ${planta.sensores.get(c.id_sensor).nombre}`, c.client_id && c.client_id !== nombre(c) && [" · ", h("code", null, c.client_id)]),
    c.ultimo_error && error(c.ultimo_error),
    h("dl", { class: "datos" },
      dato(t("direccion"), c.ip),
      dato(t("via"), c.via && `${c.via} · MQTT ${c.version}`),
      dato(c.conectado ? t("desde") : t("hasta"), (c.conectado ? c.desde : c.hasta) && hace(c.conectado ? c.desde : c.hasta)),
      c.ip && dato(t("mensajes"), t("mensajes_texto", { recibidos: entero(c.mensajes_recibidos), enviados: entero(c.mensajes_enviados), rechazados: entero(c.mensajes_rechazados) })),
      c.ip && dato(t("trafico"), `${bytes(c.bytes_recibidos)} / ${bytes(c.bytes_enviados)}`)),
    c.id !== null && h("div", { class: "acciones" }, boton(t("desconectar"), () => desconecta(c, recarga), "peligro menudo")));
}

export function vistaConexiones() {
  let [clientes, actual, cargado, terminada] = [[], 0, false, false];
  const lista = h("ul", { class: "tarjetas" });
  const [resumen, vacio, pie] = [h("p", { class: "resumen", role: "status" }), h("p", { class: "vacio" }, t("cargando")), h("div")];
  const buscar = h("input", { type: "search", id: "buscar", autocomplete: "off", on: { input: () => { actual = 0; pinta(); } } });
  const problemas = h("input", { type: "checkbox", id: "problemas", on: { change: () => { actual = 0; pinta(); } } });
  const cabeza = h("h1", { tabindex: -1 }, t("conexiones"));
  const nodo = h("section", null,
    h("div", { class: "titulo" }, cabeza),
    h("p", { class: "ayuda" }, t("conexiones_ayuda")),
    h("div", { class: "barra" }, h("label", { for: "buscar" }, t("buscar")), buscar,
      h("span", { class: "casilla" }, problemas, h("label", { for: "problemas" }, t("solo_problemas"))), resumen),
    vacio, lista, pie);

  function pinta() {
    const texto = buscar.value.trim().toLowerCase();
    const hallados = clientes.filter((c) => (!problemas.checked || c.ultimo_error) &&
      [c.device_id, c.client_id, c.ip, c.user_id].some((x) => x?.toLowerCase().includes(texto)));
    actual = Math.min(actual, Math.max(0, Math.ceil(hallados.length / TAMANO) - 1));
    const visibles = hallados.slice(actual * TAMANO, (actual + 1) * TAMANO);
    sincroniza(lista, visibles, (c) => [c.tipo, nombre(c), c.client_id].join(" "), (c) => JSON.stringify(c), (c) => tarjeta(c, recarga));
    const conectados = hallados.filter((c) => c.conectado).length;
    const dicho = cargado ? t("resumen_conexiones", { total: entero(hallados.length), online: entero(conectados) }) : "";
    if (resumen.textContent !== dicho) resumen.textContent = dicho;
    if (cargado) vacio.textContent = clientes.length === 0 ? t("sin_conexiones") : t("nada_hallado");
    vacio.hidden = hallados.length > 0;
    pagina(pie, actual, hallados.length, TAMANO, (n) => { actual = n; pinta(); cabeza.focus(); });
  }

  async function recarga() {
    try {
      const llegados = await todas("/mqtt/clientes");
      if (terminada) return;
      [clientes, cargado] = [llegados, true];
      // Who is missing first: they are what somebody is looking for.
      const falta = (c) => Number(!c.conectado && c.ultimo_error !== null);
      clientes.sort((a, b) => falta(b) - falta(a) || Number(b.conectado) - Number(a.conectado) || nombre(a).localeCompare(nombre(b)));
    } catch (problema) {
      if (!cargado) vacio.textContent = problema.message;
    }
    pinta();
  }

  const reloj = setInterval(() => { if (!document.hidden) recarga(); }, SONDEO);
  const edades = setInterval(() => envejece(lista), 1_000);
  recarga();
  return { titulo: t("conexiones"), nodo, termina() { terminada = true; clearInterval(reloj); clearInterval(edades); } };
}
