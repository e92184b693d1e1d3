// Puts the page together: what stands around every view, which view an address means, and who is signed in.

import { sal } from "./api.js";
import { boton, h } from "./dom.js";
import { vistaAlertas } from "./alertas.js";
import { vistaConexiones } from "./conexiones.js";
import { vistaEntrada, vistaRegistro } from "./entrada.js";
import { entero } from "./formato.js";
import { arranca, observa, para, planta } from "./planta.js";
import { vistaSensor } from "./sensor.js";
import { vistaSensores } from "./sensores.js";
import { vigila, vistaServidor } from "./servidor.js";
import { alCambiar, puede, sesion } from "./sesion.js";
import { idioma, t } from "./textos.js";

// What each role finds, the first of them first.
function secciones() {
  const datos = !puede.operar();
  return [
    datos && { ruta: "sensores", texto: t("sensores"), vista: (id) => (id ? vistaSensor(id) : vistaSensores()) },
    datos && { ruta: "alertas", texto: t("alertas"), vista: vistaAlertas },
    puede.verConexiones() && { ruta: "conexiones", texto: t("conexiones"), vista: vistaConexiones },
    puede.operar() && { ruta: "servidor", texto: t("servidor"), vista: vistaServidor },
  ].filter(Boolean);
}

const raiz = document.getElementById("consola");
const principal = h("main", { id: "principal" });
const cabecera = h("header", { class: "cabecera" });
const contador = h("span", { class: "contador", hidden: true });
const vivo = h("span", { class: "vivo", role: "status" });
let [actual, motivo] = [null, ""];

function encabeza() {
  const persona = sesion();
  cabecera.hidden = persona === null;
  if (persona === null) {
    cabecera.replaceChildren();
    return;
  }
  const enlace = ({ ruta, texto }) => h("a", { href: `#/${ruta}`, "data-ruta": ruta }, texto, ruta === "alertas" && [" ", contador]);
  cabecera.replaceChildren(
    h("p", { class: "marca" }, h("img", { src: "/consola/icono.svg", alt: "", width: 28, height: 28 }), h("span", null, persona.empresa_nombre ?? "Alertrace")),
    h("nav", { "aria-label": t("secciones") }, secciones().map(enlace)),
    h("div", { class: "persona" }, puede.operar() ? "" : vivo,
      h("span", { class: "quien" }, [persona.nombre, persona.apellido].filter(Boolean).join(" ") || persona.email, h("small", null, t(`rol.${persona.rol}`))),
      boton(t("salir"), sal, "menudo")));
  cuenta();
  estado();
}

function cuenta() {
  contador.textContent = entero(planta.alertas.size);
  contador.hidden = planta.alertas.size === 0;
}

function estado() {
  const dicho = t(`vivo.${planta.vivo}`);
  if (vivo.textContent !== dicho) vivo.textContent = dicho;
  vivo.className = `vivo ${planta.vivo}`;
}

function vistaDe([seccion, id]) {
  if (sesion() === null) return seccion === "registro" ? vistaRegistro() : vistaEntrada(motivo);
  const todas = secciones();
  const elegida = todas.find((s) => s.ruta === seccion) ?? todas[0];
  for (const enlace of cabecera.querySelectorAll("nav a")) {
    if (enlace.dataset.ruta === elegida.ruta) enlace.setAttribute("aria-current", "page");
    else enlace.removeAttribute("aria-current");
  }
  return elegida.vista(/^\d{1,15}$/.test(id ?? "") ? Number(id) : null);
}

function navega() {
  const primera = actual === null;
  actual?.termina();
  // A token that is shown once stays until somebody says that they have it.
  for (const caja of document.querySelectorAll(sesion() ? "dialog:not(.firme)" : "dialog")) caja.close();
  actual = vistaDe(location.hash.replace(/^#\/?/, "").split("/"));
  document.title = `${actual.titulo} · Alertrace`;
  principal.replaceChildren(actual.nodo);
  scrollTo(0, 0);
  // Whoever cannot see that the page changed is led to its beginning.
  const entrada = principal.querySelector(".puerta input");
  if (entrada) entrada.focus();
  else if (!primera) principal.querySelector("h1")?.focus();
}

function empieza(porque = "") {
  motivo = porque;
  para();
  if (sesion() !== null && location.hash.startsWith("#/registro")) history.replaceState(null, "", "#/");
  if (sesion() !== null && !puede.operar()) arranca();
  encabeza();
  navega();
}

document.documentElement.lang = idioma;
raiz.append(
  h("a", { class: "saltar", href: "#principal", on: { click: (e) => { e.preventDefault(); principal.querySelector("h1")?.focus(); } } }, t("saltar")),
  vigila(), cabecera, principal);
addEventListener("hashchange", navega);
observa((que) => {
  if (que === "alertas") cuenta();
  if (que === "vivo") estado();
});
alCambiar(empieza);
empieza();
