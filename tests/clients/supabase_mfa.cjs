// auth.mfa of @supabase/supabase-js against a server that speaks its dialect: node supabase_mfa.cjs URL ANON SERVICE
const { createClient } = require('@supabase/supabase-js');
const assert = require('node:assert');
const crypto = require('node:crypto');

const [url, anon, service] = process.argv.slice(2);
const options = { auth: { persistSession: false, autoRefreshToken: false }, realtime: { transport: require('ws') } };
const client = () => createClient(url, anon, options);
const ok = ({ data, error }) => {
  assert.strictEqual(error, null, JSON.stringify(error));
  return data;
};
const refused = ({ error }, code, status) => {
  assert.ok(error, `it should be refused: ${code}`);
  assert.strictEqual(error.code, code, JSON.stringify(error));
  if (status) assert.strictEqual(error.status, status);
};

// RFC 6238 in a few lines, as an app has it; `later` in steps.
function code(secret, later = 0) {
  const bits = [...secret].map((c) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'.indexOf(c).toString(2).padStart(5, '0')).join('');
  const key = Buffer.from(bits.match(/.{8}/g).map((b) => parseInt(b, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30000) + later));
  const mac = crypto.createHmac('sha1', key).update(step).digest();
  const n = mac.readUInt32BE(mac[19] & 15) & 0x7fffffff;
  return String(n % 1000000).padStart(6, '0');
}

async function main() {
  const email = 'mfa@x.pe';
  const password = 'una clave larga';
  const one = client();
  ok(await one.auth.signUp({ email, password }));
  assert.strictEqual(ok(await one.auth.mfa.getAuthenticatorAssuranceLevel()).nextLevel, 'aal1');
  refused(await one.auth.mfa.enroll({ factorType: 'phone', phone: '+51999999999' }), 'validation_failed', 400);
  const factor = ok(await one.auth.mfa.enroll({ factorType: 'totp', friendlyName: 'Mi teléfono', issuer: 'Finca' }));
  assert.ok(factor.totp.uri.startsWith('otpauth://totp/Finca:'), factor.totp.uri);
  assert.ok(factor.totp.qr_code.startsWith('data:image/svg+xml;utf-8,') && factor.totp.qr_code.includes('<svg'));
  assert.strictEqual(ok(await one.auth.mfa.listFactors()).all[0].status, 'unverified');
  // Not asked for yet.
  const before = client();
  ok(await before.auth.signInWithPassword({ email, password }));
  assert.strictEqual(ok(await before.auth.mfa.getAuthenticatorAssuranceLevel()).nextLevel, 'aal1');

  const challenge = ok(await one.auth.mfa.challenge({ factorId: factor.id }));
  assert.ok(challenge.expires_at > Date.now() / 1000);
  const verify = (c, answer) => c.auth.mfa.verify({ factorId: factor.id, challengeId: challenge.id, code: answer });
  refused(await verify(one, '000000'), 'mfa_verification_failed', 422);
  refused(await one.auth.mfa.verify({ factorId: factor.id, challengeId: 'x', code: '000000' }), 'mfa_challenge_expired', 422);
  refused(await one.auth.mfa.challenge({ factorId: 'another' }), 'mfa_factor_not_found', 404);
  const first = code(factor.totp.secret);
  ok(await verify(one, first));
  const level = ok(await one.auth.mfa.getAuthenticatorAssuranceLevel());
  assert.deepStrictEqual([level.currentLevel, level.nextLevel], ['aal2', 'aal2']);
  assert.strictEqual(ok(await one.auth.mfa.listFactors()).totp[0].friendly_name, 'Mi teléfono');
  assert.strictEqual(ok(await one.auth.refreshSession()).session.user.factors.length, 1);
  assert.strictEqual(ok(await one.auth.mfa.getAuthenticatorAssuranceLevel()).currentLevel, 'aal2');
  // What was open before has ended.
  refused(await before.auth.getUser(), 'bad_jwt', 403);
  refused(await before.auth.refreshSession(), 'refresh_token_not_found', 400);
  refused(await one.auth.mfa.enroll({ factorType: 'totp', friendlyName: 'Otro' }), 'too_many_enrolled_mfa_factors', 422);

  // The password alone opens what is needed to show the factor, and nothing else.
  const two = client();
  ok(await two.auth.signInWithPassword({ email, password }));
  const half = ok(await two.auth.mfa.getAuthenticatorAssuranceLevel());
  assert.deepStrictEqual([half.currentLevel, half.nextLevel], ['aal1', 'aal2']);
  ok(await two.auth.refreshSession());
  assert.strictEqual(ok(await two.auth.mfa.getAuthenticatorAssuranceLevel()).currentLevel, 'aal1');
  refused(await two.auth.updateUser({ password: 'otra clave larga' }), 'insufficient_aal', 401);
  refused(await two.auth.mfa.unenroll({ factorId: factor.id }), 'insufficient_aal', 422);
  refused(await two.auth.mfa.challengeAndVerify({ factorId: factor.id, code: first }), 'mfa_verification_failed', 422);
  ok(await two.auth.mfa.challengeAndVerify({ factorId: factor.id, code: code(factor.totp.secret, 1) }));
  assert.strictEqual(ok(await two.auth.mfa.getAuthenticatorAssuranceLevel()).currentLevel, 'aal2');
  // One that has not shown it ends itself, whatever it asks for.
  const three = client();
  ok(await three.auth.signInWithPassword({ email, password }));
  ok(await three.auth.signOut({ scope: 'global' }));
  ok(await two.auth.refreshSession());
  ok(await two.auth.mfa.unenroll({ factorId: factor.id }));
  const four = client();
  ok(await four.auth.signInWithPassword({ email, password }));
  assert.strictEqual(ok(await four.auth.mfa.getAuthenticatorAssuranceLevel()).nextLevel, 'aal1');

  // Whoever administers accounts sees factors, and takes one away.
  const again = ok(await four.auth.mfa.enroll({ factorType: 'totp' }));
  const admin = createClient(url, service, options).auth.admin;
  const userId = ok(await four.auth.getUser()).user.id;
  const listed = ok(await admin.mfa.listFactors({ userId }));
  assert.strictEqual(listed.factors[0].id, again.id);
  refused(await client().auth.admin.mfa.deleteFactor({ userId, id: again.id }), 'not_admin', 403);
  ok(await admin.mfa.deleteFactor({ userId, id: again.id }));
  refused(await admin.mfa.deleteFactor({ userId, id: again.id }), 'mfa_factor_not_found', 404);
}
main().catch((e) => { console.error(e); process.exit(1); });
