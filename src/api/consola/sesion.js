// Who is signed in, in this tab and until it is closed: tokens are in sessionStorage and nowhere else.

const LLAVE = "alertrace.sesion";
const cambios = new EventTarget();

let actual = lee();

function lee() {
  try {
    return JSON.parse(sessionStorage.getItem(LLAVE));
  } catch {
    return null;
  }
}

export function sesion() {
  return actual;
}

// Keeps what a sign-in or a refresh answered.
export function abre(respuesta) {
  const nueva = actual === null;
  const { access_token, refresh_token, expires_in, user_id, email, nombre, apellido, rol, empresa_nombre } = respuesta;
  // Renewed before it ends: a minute, and of a short one the last fifth.
  const renovar = Date.now() + 1000 * Math.max(expires_in - 60, expires_in * 0.8);
  actual = { access_token, refresh_token, renovar, user_id, email, nombre, apellido, rol, empresa_nombre };
  sessionStorage.setItem(LLAVE, JSON.stringify(actual));
  if (nueva) cambios.dispatchEvent(new CustomEvent("cambio"));
}

// Forgets it; `motivo` is for whoever has to sign in again.
export function cierra(motivo = "") {
  if (actual === null) return;
  actual = null;
  sessionStorage.removeItem(LLAVE);
  cambios.dispatchEvent(new CustomEvent("cambio", { detail: motivo }));
}

export function alCambiar(fn) {
  cambios.addEventListener("cambio", (evento) => fn(evento.detail ?? ""));
}

// What a role may do, for which buttons to show; whether it is done the server decides.
export const puede = {
  operar: () => actual?.rol === "operador",
  administrar: () => actual?.rol === "admin_empresa",
  supervisar: () => ["admin_empresa", "supervisor"].includes(actual?.rol),
  verConexiones: () => ["admin_empresa", "operador"].includes(actual?.rol),
};
