// @supabase/supabase-js against a server that speaks its dialect: node supabase.cjs URL ANON SERVICE CODE-FILE
const { createClient } = require('@supabase/supabase-js');
const assert = require('node:assert');

const [url, anon, service] = process.argv.slice(2);
// Node before 22 has no WebSocket of its own, which the library asks for though it is not used here.
const options = { auth: { persistSession: false, autoRefreshToken: false }, realtime: { transport: require('ws') } };
const client = () => createClient(url, anon, options);

const ok = ({ data, error }) => {
  assert.strictEqual(error, null, JSON.stringify(error));
  return data;
};
const refused = ({ error }, code, status) => {
  assert.ok(error, 'it should be refused');
  assert.strictEqual(error.code, code, JSON.stringify(error));
  if (status) assert.strictEqual(error.status, status);
};

async function main() {
  const email = 'js@x.pe';
  const password = 'una clave larga';
  const one = client();
  const made = ok(await one.auth.signUp({ email, password, options: { data: { nombre: 'Ana' } } }));
  assert.strictEqual(made.user.email, email);
  assert.strictEqual(made.user.user_metadata.nombre, 'Ana');
  assert.ok(made.session.access_token);
  refused(await client().auth.signUp({ email, password }), 'user_already_exists', 422);
  refused(await client().auth.signUp({ email: 'corta@x.pe', password: 'corta' }), 'weak_password', 422);
  refused(await client().auth.signInWithPassword({ email, password: 'another long one' }), 'invalid_credentials', 400);

  const two = client();
  const signedIn = ok(await two.auth.signInWithPassword({ email, password }));
  assert.strictEqual(signedIn.user.id, made.user.id);
  assert.ok(signedIn.session.expires_at > Date.now() / 1000);
  assert.strictEqual(ok(await two.auth.getUser()).user.id, made.user.id);
  assert.strictEqual(ok(await two.auth.getClaims()).claims.sub, made.user.id);
  const next = ok(await two.auth.refreshSession());
  assert.notStrictEqual(next.session.refresh_token, signedIn.session.refresh_token);
  const changed = ok(await two.auth.updateUser({ data: { telefono: '1', nombre: null } }));
  assert.deepStrictEqual(changed.user.user_metadata, { telefono: '1' });
  ok(await two.auth.updateUser({ password: 'otra clave larga' }));
  refused(await one.auth.refreshSession(), 'refresh_token_not_found', 400);
  ok(await two.auth.refreshSession());

  const three = client();
  ok(await three.auth.signInWithPassword({ email, password: 'otra clave larga' }));
  ok(await three.auth.signOut({ scope: 'others' }));
  refused(await two.auth.refreshSession(), 'refresh_token_not_found');
  ok(await three.auth.refreshSession());
  ok(await three.auth.signOut());

  refused(await client().auth.admin.listUsers(), 'not_admin', 403);
  const admin = createClient(url, service, options).auth.admin;
  const person = ok(await admin.createUser({
    email: 'hecha@x.pe', password, email_confirm: true, user_metadata: { a: 1 }, app_metadata: { rol: 'x' },
  })).user;
  assert.strictEqual(person.app_metadata.rol, 'x');
  refused(await admin.createUser({ email: 'hecha@x.pe', password }), 'email_exists', 422);
  const all = ok(await admin.listUsers());
  assert.ok(all.users.some((u) => u.id === person.id));
  assert.strictEqual(ok(await admin.getUserById(person.id)).user.email, 'hecha@x.pe');
  ok(await admin.updateUserById(person.id, { password: 'una tercera clave' }));
  ok(await client().auth.signInWithPassword({ email: 'hecha@x.pe', password: 'una tercera clave' }));
  ok(await admin.deleteUser(person.id));
  refused(await admin.getUserById(person.id), 'user_not_found', 404);
  refused(await client().auth.signInWithPassword({ email: 'hecha@x.pe', password: 'una tercera clave' }), 'invalid_credentials');
  refused(await createClient(url, 'another key', options).auth.signInWithPassword({ email, password }), 'no_authorization', 401);
  refused(await client().auth.resetPasswordForEmail(email), 'email_provider_disabled', 422);
}
main().catch((e) => { console.error(e); process.exit(1); });
