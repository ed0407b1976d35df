// protobuf-ts, the Twirp client that pages and Node.js programs use: the same client over protobuf and over JSON, with types
// that its own plugin makes of the `.proto`.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { equal, holds, run, user } from './lib/cases.mjs';
import { KEY, Node, token } from './lib/node.mjs';

const tools = process.env.POSTRIDER_NODE_TOOLS;
if (!tools) throw new Error('POSTRIDER_NODE_TOOLS must name the folder of protobuf-ts: run `cargo xtask test --only twirp-ts`');
const root = join(dirname(fileURLToPath(import.meta.url)), '../..');

/** Makes the types beside the packages that they need. */
function generate() {
  const folder = mkdtempSync(join(tools, 'twirp-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  execFileSync(process.env.POSTRIDER_PYTHON ?? 'python3', [
    '-m', 'grpc_tools.protoc', `--proto_path=${join(root, 'proto')}`,
    `--plugin=protoc-gen-ts=${join(tools, 'node_modules/.bin/protoc-gen-ts')}`,
    `--ts_out=${folder}`, '--ts_opt=output_javascript_es2020,long_type_bigint', 'postrider/v1/notifications.proto',
  ]);
  // It writes for bundlers, which need no endings.
  for (const file of readdirSync(folder, { recursive: true }).filter(name => name.endsWith('.js'))) {
    const path = join(folder, file);
    writeFileSync(path, readFileSync(path, 'utf8').replace(/from "(\.[^"]*)"/g, 'from "$1.js"'));
  }
  return join(folder, 'postrider/v1');
}

const made = generate();
const { NotificationServiceClient } = await import(pathToFileURL(join(made, 'notifications.client.js')).href);
const v1 = await import(pathToFileURL(join(made, 'notifications.js')).href);
const transport = createRequire(join(tools, 'here.js')).resolve('@protobuf-ts/twirp-transport');
const { TwirpFetchTransport, TwirpErrorCode } = await import(pathToFileURL(transport).href);

const node = await Node.start();

/** A client that sends JSON, or protobuf, with this credential. */
function client(sendJson, credential, headers = {}) {
  return new NotificationServiceClient(new TwirpFetchTransport({
    baseUrl: `${node.url}/twirp`, sendJson, meta: { Authorization: `Bearer ${credential}`, ...headers },
  }));
}

async function refused(call) {
  try {
    await call;
  } catch (error) {
    return { code: error.code, problem: error.meta.code, pointer: error.meta.pointer };
  }
  throw new Error('was answered');
}

const users = (...ids) => ({ oneofKind: 'users', users: { ids } });
const text = data => ({ oneofKind: 'dataJson', dataJson: data });
const inbox = async (who, query = '') =>
  (await fetch(`${node.url}/v1/inbox?wait=0${query}`, { headers: { Authorization: `Bearer ${token(who)}` } })).text();

/** The cases for one encoding. */
function cases(sendJson) {
  const by = sendJson ? 'JSON' : 'protobuf';
  const back = client(sendJson, KEY);
  return {
    [`${by}: published, looked up, acknowledged, read, taken back`]: async () => {
      const [ada, bob, eve] = [user('ada'), user('bob'), user('eve')];
      const data = '{"z":9007199254740993,"a":[1.0]}';
      const { id } = (await back.publish({
        audience: users(ada, bob, eve), payload: text(data), subject: 'Order shipped',
        ttl: { seconds: 3600n, nanos: 500_000_000 }, excludeUsers: [], durability: v1.Durability.STORED, devices: v1.Devices.ALL,
      })).response;
      const got = await inbox(ada, '&ack=none');
      holds(got.includes(`"data":${data}`), got);
      const target = { oneofKind: 'ids', ids: { ids: [id, 'unknown'] } };
      equal((await client(sendJson, token(ada)).ack({ target })).response.settled, 1);
      equal((await client(sendJson, token(bob)).read({ target })).response.settled, 1);
      equal((await back.cancel({ id })).response.cancelled, 1);
      const shown = (await back.get({ id })).response;
      equal([shown.id, shown.subject, shown.audience.count], [id, 'Order shipped', 3]);
      equal(shown.audience.kind, v1.GetResponse_Audience_Kind.USERS);
      const { pending, delivered, read, cancelled, dead } = shown.counts;
      equal([pending, delivered, read, cancelled, dead], [0, 1, 1, 1, 0]);
      const age = Date.now() - Number(shown.time.seconds) * 1000;
      holds(age > -1000 && age < 60_000, `${age} ms old`);
    },
    [`${by}: a google.protobuf.Value`]: async () => {
      const ada = user('ada');
      const fields = { a: { kind: { oneofKind: 'stringValue', stringValue: 'é' } }, n: { kind: { oneofKind: 'numberValue', numberValue: 7 } } };
      const data = { kind: { oneofKind: 'structValue', structValue: { fields } } };
      await back.publish({ audience: users(ada), payload: { oneofKind: 'data', data }, excludeUsers: [], durability: 0, devices: 0 });
      const got = await inbox(ada);
      holds(got.includes('"data":{"a":"é","n":7}'), got);
    },
    [`${by}: a batch with bad notifications`]: async () => {
      const one = (audience, payload) => ({ audience, payload, excludeUsers: [], durability: 0, devices: 0 });
      const { accepted, rejected } = (await back.publishBatch({
        notifications: [one(users(user()), text('1')), one({ oneofKind: undefined }, text('1')), one(users(user(), ''), text('1')), one(users(user()), text('2'))],
      })).response;
      equal(accepted.map(({ index }) => index), [0, 3]);
      equal(rejected.map(({ index, code, pointer }) => [index, code, pointer]), [[1, 'invalid_notification', undefined], [2, 'invalid_notification', '/users/ids/1']]);
    },
    [`${by}: state and presence`]: async () => {
      const ada = user('ada');
      await back.patchState({ user: ada, set: { a: '1', b: '2' }, remove: [] });
      const after = (await back.patchState({ user: ada, set: { b: '3' }, remove: ['a'] })).response.version;
      const { state, version } = (await back.getState({ user: ada })).response;
      equal(state, { b: '3' });
      holds(typeof version === 'bigint' && version > 0n && version === after, `version ${version}`);
      const presence = (await back.presence({ user: ada })).response;
      equal([presence.user, presence.online, presence.sessions], [ada, false, []]);
    },
    [`${by}: refusals`]: async () => {
      const request = (...ids) => ({ audience: users(...ids), payload: text('1'), excludeUsers: [], durability: 0, devices: 0 });
      const wrong = client(sendJson, 'wrong');
      equal(await refused(wrong.publish(request('ada'))), { code: TwirpErrorCode[TwirpErrorCode.unauthenticated], problem: 'key_invalid', pointer: undefined });
      equal(await refused(back.publish(request())), { code: 'invalid_argument', problem: 'empty_audience', pointer: '/users/ids' });
      equal(await refused(back.publish({ ...request('ada'), payload: text('{') })), { code: 'invalid_argument', problem: 'invalid_notification', pointer: '/data_json' });
      equal((await refused(back.get({ id: 'unknown' }))).code, 'not_found');
      const id = user('id');
      await back.publish({ ...request('ada'), id });
      equal(await refused(back.publish({ ...request('bob'), id })), { code: 'already_exists', problem: 'id_conflict', pointer: '/id' });
    },
  };
}

const status = await run({ ...cases(false), ...cases(true) });
await node.remove();
process.exit(status);
