// Numbers, moments and ages as people of here write them.

import { idioma } from "./textos.js";

const local = navigator.languages?.find((l) => l.toLowerCase().startsWith(idioma)) ?? idioma;
// With a comma, as the server writes them in what it says of an alert.
const conComa = idioma === "es" ? "es-ES" : local;
const cifras = new Intl.NumberFormat(conComa, { maximumFractionDigits: 2 });
const entera = new Intl.NumberFormat(conComa, { maximumFractionDigits: 0 });
const hace = new Intl.RelativeTimeFormat(local, { style: "narrow", numeric: "always" });
const fecha = new Intl.DateTimeFormat(local, { dateStyle: "medium", timeStyle: "medium" });

export const numero = (n) => cifras.format(n);
export const entero = (n) => entera.format(n);

export function conUnidad(n, unidad) {
  // pH has none, and says so by its name.
  return unidad && unidad !== "pH" ? `${numero(n)} ${unidad}` : numero(n);
}

export const momento = (texto) => fecha.format(new Date(texto));

const PASOS = [["second", 60], ["minute", 60], ["hour", 24], ["day", 30], ["month", 12], ["year", Infinity]];

// How long ago; a device's clock may be ahead of this one's.
export function edad(texto, ahora = Date.now()) {
  let n = Math.max(0, (ahora - Date.parse(texto)) / 1000);
  for (const [unidad, cuantos] of PASOS) {
    if (n < cuantos) return hace.format(-Math.floor(n), unidad);
    n /= cuantos;
  }
  return "";
}

export const bytes = (n) => {
  const medidas = ["B", "kB", "MB", "GB", "TB"];
  const k = Math.min(medidas.length - 1, Math.floor(Math.log10(Math.max(1, n)) / 3));
  return `${numero(n / 1000 ** k)} ${medidas[k]}`;
};

const OPCIONES = { hora: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }, dia: { day: "numeric", month: "short" }, mes: { month: "short", year: "2-digit" } };
const ejes = Object.fromEntries(Object.entries(OPCIONES).map(([n, o]) => [n, new Intl.DateTimeFormat(local, o)]));

// A mark of a time axis: by hour, day or month.
export const marca = (ms, paso) => ejes[paso].format(new Date(ms));
