"""What schemathesis is to know of this API beyond docs/openapi.json.

A document says which requests are well formed, and not which moments lie ahead or which key was used before: what
is drawn is given such a value here (`map_case`), so that every operation is reached. What remains is a refusal that
no document can announce: each is named below by operation and by the answer's own words, with its reason, and any
other refusal of what the document allows fails the run (`filter_failure`).
"""
import datetime
import uuid

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import EnsureResourceAvailability, RejectedPositiveData, UseAfterFree


def soon(minutes):
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def is_moment(value):
    try:
        return isinstance(value, str) and bool(datetime.datetime.fromisoformat(value.replace("Z", "+00:00")))
    except ValueError:
        # What Python does not read though RFC 3339 allows it: a second of 60, a year of 0000.
        return isinstance(value, str) and len(value) >= 20 and value[4:5] == "-" and value[10:11] in "Tt "


def unique(length):
    """A number that nobody has."""
    return str(uuid.uuid4().int)[:length]


# What scripts/check-api has made, of which nothing is taken away, and what this run has made of it since.
# (The first two accounts are the administrator's and the operador's.)
KEPT = {"id_sensor": 1, "id_cultivo": 1, "id_trabajador": 3, "id_alerta": 1}
MADE = {name: [] for name in (*KEPT, "id_asignacion", "id_invitacion", "id_api_key")}
MAKERS = {
    "POST /api/v1/sensores": ("id_sensor", lambda made: made["sensor"]["id_sensor"]),
    "POST /api/v1/cultivos": ("id_cultivo", lambda made: made["id_cultivo"]),
    "POST /api/v1/trabajadores": ("id_trabajador", lambda made: made["id_trabajador"]),
    "POST /api/v1/trabajadores/invitaciones": ("id_invitacion", lambda made: made["id_invitacion"]),
    "POST /api/v1/asignaciones": ("id_asignacion", lambda made: made["id_asignacion"]),
    "POST /api/v1/api-keys": ("id_api_key", lambda made: made["id_api_key"]),
}
# Where sensors stand; scripts/check-api puts one there.
PLACE = ["Lote 1"]
NOWHERE = 10**9


def number(drawn):
    """A key, which a path may have as text; None where it is none, or past every key."""
    whole = isinstance(drawn, int) or isinstance(drawn, str) and drawn.isascii() and drawn.isdigit()
    return int(drawn) if whole and 1 <= int(drawn) < 2**53 else None


def present(name, drawn, removes):
    """The key of something that is there; a drawn one that is past every key stays, as does one that is no key."""
    made = MADE.get(name)
    if made is None or number(drawn) is None:
        return drawn
    if removes:
        return made.pop() if made else NOWHERE
    if name not in KEPT or made and number(drawn) % 2 == 0:
        return made[-1] if made else drawn
    return KEPT[name]


@schemathesis.hook
def after_call(context, case, response):
    maker = MAKERS.get(context.operation.label)
    if maker and response.status_code == 201:
        MADE[maker[0]].append(maker[1](response.json()))
    if context.operation.label == "POST /api/v1/sensores/move" and response.status_code == 200:
        PLACE[0] = case.body["to_ubicacion"]


def meet(case, label, body):
    """Leads to things that are there, where the phase does not see to it itself."""
    path = case.path_parameters or {}
    for name in path:
        path[name] = present(name, path[name], case.method == "DELETE")
    for name in KEPT:
        if name in body:
            body[name] = present(name, body[name], removes=False)
    if "sensor_ids" in body:
        body.pop("sensor_ids")
    if "from_ubicacion" in body:
        body["from_ubicacion"] = PLACE[0]
    if label == "DELETE /api/v1/sensores/by-ubicacion/{u}":
        path["u"] = PLACE[0]


@schemathesis.hook
def map_case(context, case):
    headers = case.headers or {}
    key = headers.get("Idempotency-Key")
    if isinstance(key, str) and 1 <= len(key) <= 255 and all("!" <= c <= "~" for c in key):
        # One of before would be answered as before, or refused with another body; tests/it/repeats.rs asks that.
        headers["Idempotency-Key"] = str(uuid.uuid4())
    path = case.path_parameters or {}
    if path.get("id_trabajador") in (1, "1"):
        # Whoever asks stays an administrator.
        path["id_trabajador"] = KEPT["id_trabajador"]
    for name in path if case.method == "DELETE" else ():
        if name in KEPT and number(path[name]) == KEPT[name]:
            path[name] = NOWHERE
    if case.meta is not None and case.meta.generation.mode.is_negative:
        return case
    label = context.operation.label
    body = case.body if isinstance(case.body, dict) else {}
    if case.meta is None or case.meta.phase.name.value != "stateful":
        meet(case, label, body)
    if "If-Match" in headers:
        # No drawn one is the tag of anything; tests/it/repeats.rs asks with those that are, and with older ones.
        headers["If-Match"] = "*"
    for bounds in (body, *body.values()) if "/umbrales" in label else ():
        if isinstance(bounds, dict) and all(isinstance(bounds.get(name), (int, float)) for name in ("min", "max")):
            bounds["min"], bounds["max"] = sorted((bounds["min"], bounds["max"]))
    # In the future, a command's within 30 days.
    expires = label in ("POST /api/v1/sensores/{id_sensor}/comandos", "POST /api/v1/api-keys")
    if expires and is_moment(body.get("expira")):
        body["expira"] = soon(60)
    # What nobody has yet, or nothing would ever be made; a password not one that many people have.
    if label in ("POST /api/v1/auth/register", "POST /api/v1/trabajadores", "POST /api/v1/sensores"):
        if isinstance(body.get("email"), str) and body["email"][:1].isalnum() and body["email"].index("@") < 50:
            body["email"] = unique(10) + body["email"][:240]
        for name, digits in (("dni", 8), ("ruc", 11)):
            for holder in (body, body.get("empresa")):
                if isinstance(holder, dict) and isinstance(holder.get(name), str) and holder[name].strip():
                    holder[name] = unique(digits)
        if isinstance(body.get("device_id"), str):
            body["device_id"] = body["device_id"][:40] + unique(20)
    for name in ("password", "new_password"):
        if isinstance(body.get(name), str) and label not in ("POST /api/v1/auth/login", "POST /api/v1/auth/token"):
            body[name] = f"una clave larga {uuid.uuid4()}"
    if label == "PUT /api/v1/trabajadores/{id_trabajador}":
        # It is taken as it is alone, whatever form sends it.
        body.pop("email", None)
    if label == "POST /api/v1/auth/register" and body.get("codigo_invitacion") is not None:
        # Codes are made by administrators, each for one person; tests/it/identity asks what becomes of them.
        body["codigo_invitacion"] = None
    if label == "POST /api/v1/sensores/data":
        for reading in case.body if isinstance(case.body, list) else [body]:
            # Of a moment that is neither to come nor past the retention; of the device that signs in; with a value.
            if reading.get("timestamp") is not None:
                reading["timestamp"] = soon(-1)
            if reading.get("device_id") is not None:
                reading["device_id"] = "s0"
            reading["humedad_aire"] = 50
    if label == "GET /api/v1/sensores/{id_sensor}/lecturas" and case.query:
        # Not both; and only CSV has no maximum.
        if "intervalo" in case.query:
            case.query.pop("puntos", None)
        if len(str(case.query.get("limit", ""))) > 3:
            case.query["limit"] = 1000
    return case


# (operation, an answer's `code`, the messages of its fields, why a document cannot say so)
OF_ANY = None
WRONG_CODE = "No es correcto o ya se usó; espere el siguiente."
HARVEST = "La cosecha no puede ser antes de la siembra."
INVERTED = "min debe ser menor que max."
PHYSICAL = "Fuera del rango físico de la variable."
TOO_MUCH = {
    "Demasiados datos en una respuesta: como máximo 5000 intervalos y 50000 valores; elija un intervalo mayor, "
    "un rango menor o una variable.",
    "Demasiadas variables o puntos en este rango: elija una variable, o menos puntos.",
}
REFUSALS = [
    ("POST /api/v1/auth/reset-password", "invalid_code", OF_ANY, "a token that came by mail, once"),
    ("GET /api/v1/auth/confirm", "invalid_code", OF_ANY, "a token that came by mail, once"),
    ("POST /api/v1/auth/totp/confirmar", "validation_failed", {WRONG_CODE}, "a code of the minute"),
    ("POST /api/v1/auth/totp/codigos", "validation_failed", {WRONG_CODE}, "a code of the minute"),
    ("POST /api/v1/auth/totp/quitar", "validation_failed", {WRONG_CODE, "No es la contraseña."}, "a code of the minute"),
    ("POST /api/v1/auth/totp/confirmar", "too_many_requests", OF_ANY, "so many wrong codes a minute"),
    ("POST /api/v1/auth/totp/codigos", "too_many_requests", OF_ANY, "so many wrong codes a minute"),
    ("POST /api/v1/auth/totp/quitar", "too_many_requests", OF_ANY, "so many wrong codes a minute"),
    ("PUT /api/v1/sistema/log", "validation_failed", OF_ANY, "directives by module have a grammar of their own"),
    ("GET /api/v1/sensores/{id_sensor}/lecturas", "validation_failed", TOO_MUCH, "the range over the width of a bucket"),
    ("POST /api/v1/cultivos", "validation_failed", {HARVEST}, "one moment before another"),
    ("PUT /api/v1/cultivos/{id_cultivo}", "validation_failed", {HARVEST}, "one moment before another"),
    ("PATCH /api/v1/cultivos/{id_cultivo}", "validation_failed", {HARVEST}, "one moment before another"),
    ("PUT /api/v1/umbrales", "validation_failed", {INVERTED}, "one value below another"),
    ("PUT /api/v1/cultivos/{id_cultivo}/umbrales", "validation_failed", {INVERTED}, "one value below another"),
    (
        "PUT /api/v1/cultivos/{id_cultivo}/umbrales/{variable}",
        "validation_failed",
        {INVERTED, PHYSICAL},
        "one value below another, and both within what the path's variable can be",
    ),
    (
        "PUT /api/v1/sensores/{id_sensor}/umbrales/{variable}",
        "validation_failed",
        {INVERTED, PHYSICAL},
        "one value below another, and both within what the path's variable can be",
    ),
]


def problem(response):
    try:
        return response.json()
    except ValueError:
        return {}


@schemathesis.hook
def filter_failure(context, failure, case, response):
    label = context.operation.label
    if isinstance(failure, RejectedPositiveData):
        said = problem(response)
        messages = {e["mensaje"] for e in said.get("errors", [])}
        for operation, code, allowed, _ in REFUSALS:
            known = allowed is OF_ANY or messages and messages <= allowed
            if known and (operation, code) == (label, said.get("code")):
                return False
    if isinstance(failure, AcceptedNegativeData) and label == "POST /api/v1/sensores/data":
        # Of a message what can be is kept, and the rest is named in the answer (contract section 1.1).
        return not problem(response).get("rechazadas")
    if isinstance(failure, AcceptedNegativeData) and label == "POST /api/v1/auth/register":
        # A blank optional field is an absent one, as its description says; a format of a schema has no blank.
        empresa = case.body.get("empresa") if isinstance(case.body, dict) else None
        blank = isinstance(empresa, dict) and isinstance(empresa.get("email"), str) and not empresa["email"].strip()
        return not blank
    if isinstance(failure, UseAfterFree):
        # A sensor and a person are retired: what they said and did stays to be read (contract section 2).
        return not label.split("/api/v1/")[1].startswith(("sensores/{", "trabajadores/{"))
    if isinstance(failure, EnsureResourceAvailability):
        # What is taken away here is made by PUT, and not with the sensor or the crop.
        return not (case.method == "DELETE" and label.endswith("/umbrales/{variable}"))
    return True
