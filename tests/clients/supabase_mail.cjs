// What goes by mail, with @supabase/supabase-js: node supabase_mail.cjs URL ANON SERVICE. It says `link E-MAIL` for the
// link of the next message, and reads it.
const { createClient } = require('@supabase/supabase-js');
const assert = require('node:assert');
const readline = require('node:readline');

const [url, anon, service] = process.argv.slice(2);
const options = { auth: { persistSession: false, autoRefreshToken: false }, realtime: { transport: require('ws') } };
const client = () => createClient(url, anon, options);
const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const ok = ({ data, error }) => {
  assert.strictEqual(error, null, JSON.stringify(error));
  return data;
};
const refused = ({ error }, code, status) => {
  assert.ok(error, `it should be refused: ${code}`);
  assert.strictEqual(error.code, code, JSON.stringify(error));
  if (status) assert.strictEqual(error.status, status);
};
async function link(email) {
  console.log(`link ${email}`);
  const { value } = await answers.next();
  return new URL(value).searchParams;
}

async function main() {
  const headers = { apikey: anon };
  const settings = await (await fetch(`${url}/auth/v1/settings`, { headers })).json();
  assert.strictEqual(settings.external.email, true);
  assert.deepStrictEqual([settings.disable_signup, settings.mailer_autoconfirm], [false, false]);
  const health = await (await fetch(`${url}/auth/v1/health`, { headers })).json();
  assert.strictEqual(health.name, 'GoTrue');
  assert.match(health.version, /^\d+\.\d+\.\d+/);

  // An address is confirmed by the link of a message.
  const email = 'js-mail@x.pe';
  const password = 'una clave larga';
  const one = client();
  const made = ok(await one.auth.signUp({ email, password, options: { data: { nombre: 'Ana' } } }));
  assert.strictEqual(made.session, null);
  assert.strictEqual(made.user.identities.length, 1);
  refused(await client().auth.signInWithPassword({ email, password }), 'email_not_confirmed', 400);
  const confirm = await link(email);
  assert.strictEqual(confirm.get('type'), 'signup');
  refused(await client().auth.verifyOtp({ token_hash: 'invented', type: 'email' }), 'otp_expired', 403);
  const verified = ok(await one.auth.verifyOtp({ token_hash: confirm.get('token'), type: 'email' }));
  assert.strictEqual(verified.user.id, made.user.id);
  assert.strictEqual(ok(await one.auth.getUser()).user.user_metadata.nombre, 'Ana');
  refused(await client().auth.verifyOtp({ token_hash: confirm.get('token'), type: 'email' }), 'otp_expired', 403);
  ok(await client().auth.signInWithPassword({ email, password }));
  // Nobody learns that somebody has it, but whoever reads its mail.
  const again = ok(await client().auth.signUp({ email, password: 'another long one', options: { data: { nombre: 'Eva' } } }));
  assert.deepStrictEqual([again.session, again.user.identities, again.user.email], [null, [], email]);
  assert.notStrictEqual(again.user.id, made.user.id);

  // A message that was lost is sent again; of a confirmed or unknown address nobody is told anything.
  const admin = createClient(url, service, options).auth.admin;
  ok(await admin.createUser({ email: 'js-late@x.pe', password }));
  for (const unknown of ['nobody@x.pe', email, 'js-late@x.pe']) {
    ok(await client().auth.resend({ type: 'signup', email: unknown }));
  }
  const late = await link('js-late@x.pe');
  ok(await client().auth.verifyOtp({ token_hash: late.get('token'), type: 'signup' }));
  ok(await client().auth.signInWithPassword({ email: 'js-late@x.pe', password }));

  // A forgotten password is replaced by the link of a message, and what it opened is over.
  ok(await admin.createUser({ email: 'js-lost@x.pe', password, email_confirm: true }));
  const thief = client();
  ok(await thief.auth.signInWithPassword({ email: 'js-lost@x.pe', password }));
  ok(await client().auth.resetPasswordForEmail('js-lost@x.pe'));
  const recover = await link('js-lost@x.pe');
  assert.strictEqual(recover.get('type'), 'recovery');
  const owner = client();
  refused(await owner.auth.verifyOtp({ token_hash: recover.get('token'), type: 'email' }), 'otp_expired', 403);
  ok(await owner.auth.verifyOtp({ token_hash: recover.get('token'), type: 'recovery' }));
  ok(await owner.auth.updateUser({ password: 'otra clave larga' }));
  refused(await thief.auth.getUser(), 'bad_jwt', 403);
  refused(await thief.auth.refreshSession(), 'refresh_token_not_found', 400);
  ok(await owner.auth.getUser());
  refused(await client().auth.signInWithPassword({ email: 'js-lost@x.pe', password }), 'invalid_credentials', 400);
  ok(await client().auth.signInWithPassword({ email: 'js-lost@x.pe', password: 'otra clave larga' }));
}
main().then(() => process.exit(0), (e) => { console.error(e); process.exit(1); });
