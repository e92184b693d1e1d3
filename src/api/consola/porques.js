// Why a device is not connected, in the words of whoever holds it.

import { t } from "./textos.js";

// What the broker says of a connection that ended, and which of our texts says it to an installer; a test of the
// server looks for each in it.
const PORQUES = [
  ["unknown or wrong token", "token"],
  ["failed too often", "demasiadas"],
  ["no user name", "sin_usuario"],
  ["network connection was lost", "red"],
  ["the same client connected again", "relevada"],
  ["said nothing for one and a half", "callado"],
  ["credential was replaced or revoked", "renovada"],
  ["an administrator disconnected it", "administrador"],
  ["the server stopped", "parada"],
  ["went on sending faster", "rapido"],
  ["certificate", "certificado"],
  ["malformed CONNECT", "protocolo"],
  ["broke the protocol", "protocolo"],
  ["packet that cannot be read", "protocolo"],
];

// As the broker says it, where there are no other words.
export function explicacion(motivo) {
  const clave = PORQUES.find(([dicho]) => motivo.includes(dicho))?.[1];
  return clave ? t(`porque.${clave}`) : motivo;
}
