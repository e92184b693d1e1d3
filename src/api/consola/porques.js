// Why a device is not connected, in the words of whoever holds it.

import { t } from "./textos.js";

// What the broker says of a connection that ended, and which of our texts says it to an installer; tests of the
// server hold the two to each other.
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
  ["said what it must not say then", "protocolo"],
  ["larger than mqtt.max_packet_bytes", "grande"],
  ["token that it signed in with has expired", "caducada"],
  ["topic with a wildcard", "comodin"],
  ["failed inside the server", "interno"],
  ["more unacknowledged messages", "ventana"],
  ["wanted its will sent", "testamento"],
  ["cannot check: ", "sin_comprobar"],
];

// As the broker says it, where there are no other words.
export function explicacion(motivo) {
  const clave = PORQUES.find(([dicho]) => motivo.includes(dicho))?.[1];
  return clave ? t(`porque.${clave}`) : motivo;
}
