// Elements without markup: whatever a device or a person is called stands in a text node, and is never read as HTML.
// Also what every view needs of them: fields with their errors, dialogs, ages that go on, lists that keep their nodes.

import { edad, momento } from "./formato.js";
import { t } from "./textos.js";

const ENFOCABLE = "a, button, input, select, textarea, [tabindex]";
const SVG = "http://www.w3.org/2000/svg";

function completa(nodo, propiedades, hijos) {
  for (const [nombre, valor] of Object.entries(propiedades ?? {})) {
    if (nombre === "on") {
      for (const [evento, fn] of Object.entries(valor)) nodo.addEventListener(evento, fn);
    } else if (nombre.startsWith("aria-")) {
      // There false is said, and not left out.
      if (valor !== null && valor !== undefined) nodo.setAttribute(nombre, String(valor));
    } else if (valor === true) {
      nodo.setAttribute(nombre, "");
    } else if (valor !== false && valor !== null && valor !== undefined) {
      nodo.setAttribute(nombre, valor);
    }
  }
  // What is no node becomes text.
  nodo.append(...hijos.flat(Infinity).filter((hijo) => hijo !== null && hijo !== undefined && hijo !== false));
  return nodo;
}

// An element: `on` has its listeners, everything else is an attribute.
export function h(etiqueta, propiedades, ...hijos) {
  return completa(document.createElement(etiqueta), propiedades, hijos);
}

// The same of a drawing.
export function dibuja(etiqueta, propiedades, ...hijos) {
  return completa(document.createElementNS(SVG, etiqueta), propiedades, hijos);
}

export function boton(texto, al, clase = "") {
  return h("button", { type: "button", class: clase, on: { click: al } }, texto);
}

let cuenta = 0;

// A field with its label, its help and room for its error. `name` is the `campo` that the API calls it by.
export function campo(etiqueta, nombre, { ayuda, lista, ...atributos } = {}) {
  cuenta += 1;
  const id = `campo-${cuenta}`;
  const entrada = h(atributos.filas ? "textarea" : "input", {
    id, name: nombre, autocomplete: "off", rows: atributos.filas, list: lista && `${id}-lista`,
    "aria-describedby": `${id}-ayuda ${id}-error`, ...atributos, filas: null,
  });
  return h("div", { class: "campo" },
    h("label", { for: id }, etiqueta),
    entrada,
    lista && h("datalist", { id: `${id}-lista` }, lista.map((valor) => h("option", { value: valor }))),
    h("p", { class: "ayuda", id: `${id}-ayuda` }, ayuda),
    h("p", { class: "error", id: `${id}-error` }));
}

// A form that sends itself nowhere: `al` gets what was written, and what it is refused stands where it belongs.
export function formulario(texto, campos, al, { alCancelar } = {}) {
  let ocupado = false;
  const general = h("p", { class: "error general", role: "alert" });
  const enviar = h("button", { type: "submit", class: "principal" }, texto);
  const form = h("form", { novalidate: true, on: { submit: envia } }, campos, general,
    h("div", { class: "acciones" }, enviar, alCancelar && boton(t("cancelar"), alCancelar)));

  function muestra(nombre, mensaje) {
    const entrada = [...form.elements].find((e) => e.name === nombre);
    const caja = entrada?.closest(".campo");
    if (!caja || caja.hidden) return false;
    entrada.setAttribute("aria-invalid", "true");
    caja.querySelector(".error").textContent = mensaje;
    return true;
  }

  async function envia(evento) {
    evento.preventDefault();
    if (ocupado) return;
    general.textContent = "";
    for (const e of form.querySelectorAll("[aria-invalid]")) e.removeAttribute("aria-invalid");
    for (const e of form.querySelectorAll(".campo .error")) e.textContent = "";
    // Not `disabled`: that would take the focus from whoever goes by keyboard.
    ocupado = true;
    enviar.setAttribute("aria-disabled", "true");
    try {
      await al(Object.fromEntries(new FormData(form)));
    } catch (problema) {
      const sueltos = (problema.errores ?? []).filter(({ campo: nombre, mensaje }) => !muestra(nombre, mensaje));
      const aparte = sueltos.map(({ campo: nombre, mensaje }) => [nombre, mensaje].filter(Boolean).join(": "));
      general.textContent = [problema.message, ...aparte].join(" ");
      form.querySelector("[aria-invalid]")?.focus();
    } finally {
      ocupado = false;
      enviar.removeAttribute("aria-disabled");
    }
  }
  return form;
}

// A dialog over everything. What is shown only once (`firme`) does not go by Escape.
export function dialogo(titulo, contenido, { firme = false, alCerrar } = {}) {
  cuenta += 1;
  const id = `dialogo-${cuenta}`;
  // A browser asks once: the second time in a row it closes. Where it does not know `closedby`, the key is held.
  const tecla = (e) => { if (e.key === "Escape") e.preventDefault(); };
  const caja = h("dialog", { "aria-labelledby": id, class: firme && "firme", closedby: firme && "none", on: {
    cancel: (e) => { if (firme) e.preventDefault(); },
    close: () => { removeEventListener("keydown", tecla); caja.remove(); alCerrar?.(); },
  } }, h("h2", { id }, titulo), contenido);
  if (firme) addEventListener("keydown", tecla);
  document.body.append(caja);
  caja.showModal();
  return caja;
}

// Asks before what cannot be taken back; answers whether it is to be done.
export function confirma(titulo, texto, accion) {
  return new Promise((listo) => {
    const caja = dialogo(titulo, [
      h("p", null, texto),
      h("div", { class: "acciones" },
        boton(accion, () => { listo(true); caja.close(); }, "peligro"),
        h("button", { type: "button", autofocus: true, on: { click: () => caja.close() } }, t("cancelar"))),
    ], { alCerrar: () => listo(false) });
  });
}

// Says for a moment what came of something.
export function avisa(texto, clase = "bien") {
  document.querySelector(".avisos")?.remove();
  const nodo = h("p", { class: `avisos ${clase}`, role: "status" });
  (document.querySelector("dialog[open]") ?? document.body).append(nodo);
  // A screen reader says what changes in a region that was there before.
  requestAnimationFrame(() => nodo.append(texto));
  setTimeout(() => nodo.remove(), 5000);
}

// Runs what a button asks for, and says when it is refused.
export function intenta(fn) {
  return async (...argumentos) => {
    try {
      await fn(...argumentos);
    } catch (problema) {
      avisa(problema.message, "mal");
    }
  };
}

// Shows `datos` in `lista`, one child each: a child whose `firma` has not changed stays, with its focus.
export function sincroniza(lista, datos, clave, firma, hacer) {
  const antes = new Map([...lista.children].map((hijo) => [hijo.dataset.clave, hijo]));
  const activo = document.activeElement;
  let foco = null;
  const ahora = datos.map((dato) => {
    const [nombre, marca] = [String(clave(dato)), firma(dato)];
    const conocido = antes.get(nombre);
    if (conocido?.dataset.firma === marca) return conocido;
    const nodo = hacer(dato);
    Object.assign(nodo.dataset, { clave: nombre, firma: marca });
    if (conocido) nodo.classList.add("cambio");
    // Whoever goes by keyboard stays where they were when what is there changes.
    const donde = conocido ? [...conocido.querySelectorAll(ENFOCABLE)].indexOf(activo) : -1;
    if (donde >= 0) foco = [nodo, donde];
    return nodo;
  });
  // First: what is moved loses its focus, and what stands below one that goes need not be.
  const quedan = new Set(ahora);
  for (const hijo of [...lista.children]) if (!quedan.has(hijo)) hijo.remove();
  ahora.forEach((nodo, n) => {
    if (lista.children[n] !== nodo) lista.insertBefore(nodo, lista.children[n] ?? null);
  });
  const suyos = foco ? [...foco[0].querySelectorAll(ENFOCABLE)] : [];
  const enfocado = foco ? suyos[foco[1]] ?? suyos.at(-1) : lista.contains(activo) && activo;
  if (enfocado && enfocado !== document.activeElement) enfocado.focus({ preventScroll: true });
}

// An age that goes on by itself: `envejece` writes it anew.
export function hace(texto) {
  return h("time", { datetime: texto, title: momento(texto), class: "edad" }, edad(texto));
}

export function envejece(raiz) {
  for (const nodo of raiz.querySelectorAll("time.edad")) {
    const ahora = edad(nodo.dateTime);
    if (nodo.textContent !== ahora) nodo.textContent = ahora;
  }
}

// Shows in `pie` which page of `tamano` of what there is this is; `al` is told which one is wanted. Its buttons stay while
// they mean the same, under whoever clicks them.
export function pagina(pie, actual, total, tamano, al) {
  const paginas = Math.max(1, Math.ceil(total / tamano));
  const ir = (n, texto) => h("button", { type: "button", disabled: n < 0 || n >= paginas, on: { click: () => al(n) } }, texto);
  const firma = `${actual}/${paginas}`;
  if (pie.dataset.firma !== firma) {
    pie.dataset.firma = firma;
    pie.replaceChildren(paginas === 1 ? "" : h("nav", { class: "paginador", "aria-label": t("paginas") },
      ir(actual - 1, t("anterior")), h("span"), ir(actual + 1, t("siguiente"))));
  }
  const [nodo, dicho] = [pie.querySelector("span"), t("pagina", { pagina: actual + 1, paginas, total })];
  if (nodo && nodo.textContent !== dicho) nodo.textContent = dicho;
}
