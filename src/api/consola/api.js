// The API, as the person who is signed in: their token, renewed before it ends, and problems as errors.

import { abre, cierra, sesion } from "./sesion.js";
import { idioma, t } from "./textos.js";

const API = "/api/v1";

// What the API refused (RFC 9457), or that it did not answer.
export class Problema extends Error {
  constructor(cuerpo, estado) {
    super(cuerpo.detail ?? t("sin_detalle", { estado }));
    this.estado = estado;
    this.codigo = cuerpo.code ?? "";
    this.errores = cuerpo.errors ?? [];
  }
}

async function problema(respuesta) {
  const cuerpo = await respuesta.json().catch(() => ({}));
  return new Problema(cuerpo ?? {}, respuesta.status);
}

async function envia(url, opciones) {
  try {
    return await fetch(url, opciones);
  } catch {
    throw new Problema({ detail: t("sin_red"), code: "sin_red" }, 0);
  }
}

const json = (cuerpo) => ({ body: JSON.stringify(cuerpo), tipo: { "Content-Type": "application/json" } });

let renovacion = null;

// One at a time: a refresh token is good once.
function renueva() {
  renovacion ??= (async () => {
    const { body, tipo } = json({ refresh_token: sesion().refresh_token });
    const headers = { ...tipo, "Accept-Language": idioma };
    const respuesta = await envia(`${API}/auth/refresh`, { method: "POST", headers, body });
    if (respuesta.ok) {
      abre(await respuesta.json());
      return;
    }
    if ([401, 403].includes(respuesta.status)) cierra(t("sesion_terminada"));
    throw await problema(respuesta);
  })().finally(() => { renovacion = null; });
  return renovacion;
}

// A token that is good for a while yet.
export async function token() {
  if (sesion() === null) throw new Problema({ detail: t("sesion_terminada") }, 401);
  if (Date.now() >= sesion().renovar) await renueva();
  return sesion().access_token;
}

// Asks; answers the response. `publica` = nobody has to be signed in.
async function responde(metodo, ruta, { cuerpo, acepta = "application/json", publica = false } = {}) {
  const { body, tipo } = cuerpo === undefined ? {} : json(cuerpo);
  const headers = { Accept: acepta, "Accept-Language": idioma, ...tipo };
  const url = ruta.startsWith("/api/") ? ruta : API + ruta;
  for (let veces = 1; ; veces += 1) {
    const llave = publica ? null : await token();
    if (llave) headers.Authorization = `Bearer ${llave}`;
    const respuesta = await envia(url, { method: metodo, headers, body });
    if (respuesta.ok) return respuesta;
    if (respuesta.status !== 401 || publica) throw await problema(respuesta);
    // Revoked, or renewed meanwhile by somebody else who asked.
    if (veces > 1) cierra(t("sesion_terminada"));
    if (sesion() === null) throw await problema(respuesta);
    if (sesion().access_token === llave) await renueva();
  }
}

export async function pide(metodo, ruta, opciones) {
  const respuesta = await responde(metodo, ruta, opciones);
  return respuesta.status === 204 ? null : respuesta.json();
}

// With its headers: where a curve is from, how many there are.
export async function pideCon(ruta) {
  const respuesta = await responde("GET", ruta);
  return { datos: await respuesta.json(), cabeceras: respuesta.headers };
}

// All of a list, page by page as `Link` leads.
export async function todas(ruta) {
  const filas = [];
  let siguiente = `${ruta}${ruta.includes("?") ? "&" : "?"}limit=1000`;
  while (siguiente) {
    const { datos, cabeceras } = await pideCon(siguiente);
    filas.push(...datos);
    siguiente = /<([^>]+)>; rel="next"/.exec(cabeceras.get("link") ?? "")?.[1];
  }
  return filas;
}

// Saves an answer as a file: a link could not carry the token.
export async function descarga(ruta, acepta) {
  const respuesta = await responde("GET", ruta, { acepta });
  const nombre = /filename="([^"]+)"/.exec(respuesta.headers.get("content-disposition") ?? "")?.[1];
  const url = URL.createObjectURL(await respuesta.blob());
  const enlace = document.createElement("a");
  Object.assign(enlace, { href: url, download: nombre ?? "lecturas.csv" });
  enlace.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// What the server says of itself, which nobody has to be signed in for; a refusal is an answer here.
export async function estadoDe(ruta) {
  const respuesta = await envia(ruta, { headers: { Accept: "application/json", "Accept-Language": idioma }, cache: "no-store" });
  return respuesta.ok ? { bien: true, datos: await respuesta.json() } : { bien: false, problema: await problema(respuesta) };
}

export async function entra(correo, clave, codigo) {
  const cuerpo = { email: correo, password: clave, ...(codigo ? { codigo } : {}) };
  abre(await pide("POST", "/auth/login", { cuerpo, publica: true }));
}

// Ends this sign-in; where the server cannot be told, it is forgotten here all the same.
export async function sal() {
  const { refresh_token } = sesion();
  await pide("POST", "/auth/logout", { cuerpo: { refresh_token } }).catch(() => {});
  cierra();
}
