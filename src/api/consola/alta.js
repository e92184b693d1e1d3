// A new sensor, and new credentials of one: the token is shown once, with the line that tries it, and what becomes of
// the device's first message.

import { pide } from "./api.js";
import { avisa, boton, campo, confirma, dialogo, formulario, h, intenta } from "./dom.js";
import { agrega, observa, planta } from "./planta.js";
import { explicacion } from "./porques.js";
import { t } from "./textos.js";

// How often it is asked why a device has not come yet.
const SONDEO = 4_000;

export function formularioDeAlta() {
  const form = formulario(t("agregar"), [
    campo(t("nombre"), "nombre", { ayuda: t("nombre_ayuda") }),
    campo(t("device_id"), "device_id", { ayuda: t("device_id_ayuda"), autocapitalize: "none", spellcheck: "false" }),
    campo(t("tipo"), "tipo", { ayuda: t("tipo_ayuda"), lista: ["clima", "suelo", "camara_fria", "agua"] }),
    campo(t("ubicacion"), "ubicacion_sensor", { ayuda: t("opcional") }),
    campo(t("intervalo"), "intervalo_lectura", { inputmode: "numeric", value: "300", ayuda: t("intervalo_ayuda") }),
  ], async (dicho) => {
    const { nombre, device_id, tipo, ubicacion_sensor: ubicacion, intervalo_lectura: intervalo } = dicho;
    const cuerpo = { nombre, device_id: device_id.trim(), tipo };
    if (ubicacion.trim()) cuerpo.ubicacion_sensor = ubicacion;
    // What is no number is the server's to refuse, at its field.
    if (intervalo.trim()) cuerpo.intervalo_lectura = Number(intervalo) || 0;
    const { sensor, credenciales } = await pide("POST", "/sensores", { cuerpo });
    caja.close();
    agrega(sensor);
    muestra(sensor, credenciales);
  }, { alCancelar: () => caja.close() });
  const caja = dialogo(t("agregar_sensor"), form);
  form.querySelector("input").focus();
}

export const renuevaCredenciales = intenta(async (sensor) => {
  if (!await confirma(t("renovar_titulo"), t("renovar_texto", { nombre: sensor.nombre }), t("renovar"))) return;
  const { credenciales } = await pide("POST", `/sensores/${sensor.id_sensor}/credenciales`);
  muestra(sensor, credenciales);
});

// The line that publishes as the device, over TLS. No device_id and no token has what a shell would take for anything
// else, and what stands around the payload means the same to sh and to the cmd of Windows.
export function linea(device_id, token) {
  const host = location.hostname.replace(/^\[|\]$/g, "");
  return `mosquitto_pub --cafile ca.pem -h ${host} -p 8883 -V 5 -q 1 -i ${device_id} ` +
    `-u ${device_id} -P ${token} -t sensores/${device_id}/data -m "{\\"temperatura\\": 21.5}"`;
}

function copiable(etiqueta, texto, clase) {
  const nodo = h("code", { class: `copiable ${clase}`, tabindex: 0 }, texto);
  return h("div", { class: "campo" }, h("span", { class: "etiqueta" }, etiqueta), nodo,
    boton(t("copiar"), intenta(() => copia(texto, nodo)), "menudo"));
}

async function copia(texto, nodo) {
  // A page without TLS, from another machine, has no clipboard: what is selected is copied the old way.
  if (navigator.clipboard) await navigator.clipboard.writeText(texto);
  else {
    getSelection().selectAllChildren(nodo);
    if (!document.execCommand("copy")) throw new Error(t("no_copiado"));
  }
  avisa(t("copiado"));
}

function muestra(sensor, { username, token }) {
  const llegada = h("p", { class: "llegada espera", role: "status" }, t("esperando"));
  const ultima = () => planta.sensores.get(sensor.id_sensor)?.timestamp_lectura ?? null;
  const desde = ultima();
  // It comes by an event, or by the list while there are none.
  const deja = observa((que) => {
    if (!["sensor", "sensores"].includes(que) || [null, desde].includes(ultima())) return;
    clearInterval(reloj);
    llegada.className = "llegada bien";
    llegada.textContent = t("llego");
  });
  const reloj = setInterval(async () => {
    const [cliente] = await pide("GET", `/mqtt/clientes?device_id=${encodeURIComponent(username)}`).catch(() => []);
    if (!llegada.classList.contains("espera") || !cliente) return;
    const porque = cliente.ultimo_error && explicacion(cliente.ultimo_error.motivo);
    llegada.textContent = cliente.conectado ? t("conectado_sin_lecturas") : porque ? `${t("esperando")} ${porque}` : t("esperando");
  }, SONDEO);
  const caja = dialogo(t("credenciales_de", { nombre: sensor.nombre }), [
    h("p", { class: "aviso" }, t("una_vez")),
    copiable(t("usuario"), username, "usuario"),
    copiable(t("token"), token, "token"),
    copiable(t("linea"), linea(username, token), "linea"),
    h("p", { class: "ayuda" }, t("ca_ayuda")),
    llegada,
    h("div", { class: "acciones" }, boton(t("guardado"), () => caja.close(), "principal")),
  ], { firme: true, alCerrar: () => { deja(); clearInterval(reloj); } });
}
