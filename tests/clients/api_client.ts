// A client made from docs/openapi.json, as a front end would use it: it must compile under --strict.
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

type Sensor = components["schemas"]["Sensor"];
type Problem = components["schemas"]["Problem"];

const client = createClient<paths>({ baseUrl: "http://localhost:8000" });

export async function tour(): Promise<string> {
  const login = await client.POST("/api/v1/auth/login", { body: { email: "a@x.pe", password: "una clave larga" } });
  if (login.error) {
    const problem: Problem = login.error;
    return (problem.errors ?? []).map((e) => `${e.campo}: ${e.mensaje}`).join() || problem.code;
  }
  const token: string = login.data.access_token;
  const headers = { Authorization: `Bearer ${token}` };
  const list = await client.GET("/api/v1/sensores", { headers, params: { query: { limit: 10, estado: "activo" } } });
  const sensors: Sensor[] = list.data ?? [];
  const first = sensors[0];
  if (!first) return "none";
  const temperature: number | null = first.temperatura;
  const name: string = first.nombre;
  const seen: string | null | undefined = first.ultima_lectura;
  const made = await client.POST("/api/v1/sensores", {
    headers,
    params: { header: { "Idempotency-Key": "1" } },
    body: { device_id: "s1", nombre: "Norte", tipo: "clima" },
  });
  const shown: string | undefined = made.data?.credenciales.token;
  const bounds = await client.PUT("/api/v1/umbrales", { headers, body: { temperatura: { min: 5, max: 30 }, ph_min: 4 } });
  const alerts = await client.GET("/api/v1/alertas", { headers, params: { query: { severidad: "alta" } } });
  const texts: string[] = (alerts.data ?? []).map((a) => a.mensaje);
  const readings = await client.GET("/api/v1/sensores/{id_sensor}/lecturas", { headers, params: { path: { id_sensor: first.id_sensor } } });
  return [name, temperature, seen, shown, bounds.response.status, readings.response.status, ...texts].join();
}
