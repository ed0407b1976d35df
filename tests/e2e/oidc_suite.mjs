// A real issuer (oauth2-mock-server): tokens by its token endpoint, keys by its JWK set, rotated by a restart with new ones.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { equal, holds, run, user } from './lib/cases.mjs';
import { Node, token } from './lib/node.mjs';

const tools = process.env.POSTRIDER_NODE_TOOLS;
if (!tools) throw new Error('POSTRIDER_NODE_TOOLS must name the folder of oauth2-mock-server: run `cargo xtask test --only oidc`');
const path = createRequire(join(tools, 'here.js')).resolve('oauth2-mock-server');
const { OAuth2Server } = await import(pathToFileURL(path).href);

const AUDIENCE = 'inbox';
const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'EdDSA'];
const CHANGE_MS = 60_000;

/** Starts with a new key of each algorithm; on the port of one before it, or a free one. */
async function issuer(algorithms, port = 0) {
  const server = new OAuth2Server();
  for (const algorithm of algorithms) await server.issuer.keys.generate(algorithm);
  await server.start(port, '127.0.0.1');
  server.service.on('beforeTokenSigning', signed => { signed.payload.aud ??= AUDIENCE; });
  return server;
}

let server = await issuer(ALGORITHMS);
const { port } = server.address();
const place = `http://127.0.0.1:${port}`;
// Its own `iss` goes by the name.
const name = server.issuer.url;

const node = await Node.start('serve', {
  auth: {
    jwt: { jwks_url: `${place}/jwks`, issuer: name, audience: AUDIENCE, jwks_min_interval: '1s', jwks_refresh: '2s', jwks_max_stale: '12s' },
    api_keys: [{ name: 'all', key: 'key-of-the-back-end-with-all-scopes', scopes: ['publish', 'broadcast', 'manage', 'read'] }],
  },
});

/** A token as an application gets it: from the token endpoint, by user name. */
async function logIn(who, fields = {}) {
  const answer = await fetch(`${place}/token`, {
    method: 'POST', body: new URLSearchParams({ grant_type: 'password', username: who, password: 'any', ...fields }),
  });
  equal(answer.status, 200, 'the token endpoint');
  return (await answer.json()).access_token;
}

async function poll(bearer) {
  const answer = await fetch(`${node.url}/v1/inbox?wait=0`, { headers: { Authorization: `Bearer ${bearer}` } });
  const body = await answer.json();
  return { status: answer.status, code: body.code, retry: answer.headers.get('retry-after'), ids: body.notifications?.map(entry => entry.id) };
}

/** Asks again until this is the status. */
async function becomes(bearer, status) {
  const end = Date.now() + CHANGE_MS;
  for (;;) {
    const answer = await poll(bearer);
    if (answer.status === status) return answer;
    holds(Date.now() < end, `still ${answer.status} ${answer.code} instead of ${status}`);
  }
}

const cases = {
  async a_user_of_the_issuer_receives() {
    const who = user('ada');
    await becomes(await logIn(who), 200);
    const id = await node.publish({ users: [who], data: 1 });
    equal((await poll(await logIn(who))).ids, [id], 'what is pending');
  },

  async every_algorithm_that_it_signs_with() {
    for (const algorithm of ALGORITHMS) {
      const keys = server.issuer.keys.toJSON();
      const { kid } = keys.find(key => key.alg === algorithm);
      const bearer = await server.issuer.buildToken({
        kid, expiresIn: 600, scopesOrTransform: (_, payload) => Object.assign(payload, { sub: 'ada', aud: [AUDIENCE, 'other'] }),
      });
      equal((await poll(bearer)).status, 200, algorithm);
    }
  },

  async a_token_for_another_application_is_refused() {
    server.service.once('beforeTokenSigning', signed => { signed.payload.aud = 'shop'; });
    equal((await poll(await logIn('ada'))).code, 'token_claims', 'code');
  },

  async a_token_of_another_issuer_is_refused() {
    server.service.once('beforeTokenSigning', signed => { signed.payload.iss = 'https://elsewhere.example'; });
    equal((await poll(await logIn('ada'))).code, 'token_claims', 'code');
    equal((await poll(token('ada'))).code, 'token_signature', 'a token by a secret that is not set');
  },

  async a_restart_with_new_keys_needs_nothing_of_the_node() {
    const old = await logIn('ada');
    await becomes(old, 200);
    await server.stop();
    server = await issuer(['ES256'], port);
    const fresh = await logIn('ada');
    const first = await poll(fresh);
    holds(first.status === 200 || (first.status === 503 && first.retry), `put off, not refused: ${first.status} ${first.code}`);
    await becomes(fresh, 200);
    equal((await becomes(old, 401)).code, 'token_signature', 'a key that is gone');
  },

  async while_it_is_away_its_keys_are_used_and_then_not() {
    const bearer = await logIn('ada');
    await becomes(bearer, 200);
    const kept = server.issuer.keys.toJSON(true);
    await server.stop();
    equal((await poll(bearer)).status, 200, 'by the last set');
    const late = await becomes(bearer, 503);
    equal(late.code, 'unavailable', 'code');
    holds(late.retry, 'no Retry-After');
    server = new OAuth2Server();
    for (const key of kept) await server.issuer.keys.add(key);
    await server.start(port, '127.0.0.1');
    await becomes(bearer, 200);
  },

  async a_node_drains_while_its_issuer_is_away() {
    await server.stop();
    equal(await node.stop(), 0, 'exit status');
  },
};

const status = await run(cases);
await node.remove();
if (server.listening) await server.stop();
process.exit(status);
